"""Runbooks: one Markdown file for every page of `orchestrator.core.pages`, shipped with the wheel."""
