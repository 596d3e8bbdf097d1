"""`python -m orchestrator.cli`: the command `holdfast` without its script."""

from orchestrator.cli import main

main()
