"""The engine `local`: nodes whose folders and interpreter this computer shares."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.engines.launched import LaunchedEngine
from providers.api import Run


class LocalEngine(LaunchedEngine):
    """Agents on folders of this computer."""

    def __init__(self, run: Callable[[str], Run], home: Callable[[str], Path]) -> None:
        """`run` gives the transport of a node, `home` its folder."""
        program = (sys.executable, "-m", "orchestrator.runtime.launch")
        super().__init__(run, home, lambda node: program)
