"""Runbooks: one Markdown file for every page of `orchestrator.core.pages`, part of the wheel."""
