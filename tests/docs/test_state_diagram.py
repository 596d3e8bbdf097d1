"""ARCHITECTURE.md shows the moves that the code allows, no more and no fewer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

TOP = Path(__file__).parents[2]


def tool() -> ModuleType:
    """Load `tools/state_diagram.py`, which is a program and no package."""
    spec = importlib.util.spec_from_file_location("state_diagram", TOP / "tools/state_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_diagram_is_what_the_generator_writes() -> None:
    text = (TOP / "ARCHITECTURE.md").read_text()
    assert text == tool().written(text), "run python tools/state_diagram.py --write"


def test_the_markers_stand_once_and_in_order() -> None:
    text, made = (TOP / "ARCHITECTURE.md").read_text(), tool()
    assert text.count(made.BEGIN) == text.count(made.END) == 1
    assert text.index(made.BEGIN) < text.index(made.END)
