"""The command line: singular nouns, then verbs.

`holdfast` is `main`; what it can do stands in the table of `root.py`, and the modules of its
commands are imported only when they are asked for.
"""

from orchestrator.cli.root import main

__all__ = ["main"]
