"""The pictures of curves are drawn from the recorded figures, and say what those say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

TOP = Path(__file__).parents[2]
FOLDER = TOP / "docs" / "curves"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """Load `tools/plot_curves.py`, which is a program and no package."""
    spec = importlib.util.spec_from_file_location("plot_curves", TOP / "tools/plot_curves.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_what_the_tool_draws_and_is_shown(tool: ModuleType) -> None:
    pictures = tool.drawn(json.loads((FOLDER / "curves.json").read_text()))
    assert {path.name for path in FOLDER.glob("*.svg")} == set(pictures)
    shown = (TOP / "docs" / "model.md").read_text()
    for name, svg in pictures.items():
        said = "run python tools/plot_curves.py"
        assert (FOLDER / name).read_text() == svg, said
        assert f"](curves/{name})" in shown


def test_a_point_lies_where_its_numbers_say(tool: ModuleType) -> None:
    figure = {
        "title": "a & b",
        "across": "step",
        "up": "loss",
        "curves": {"one": [[0, 4], [10, 0]]},
    }
    root = ElementTree.fromstring(tool.picture(figure))
    line = next(one for one in root if one.tag.endswith("polyline"))
    first, last = (tuple(map(float, one.split(","))) for one in line.attrib["points"].split())
    assert first == (tool.LEFT, tool.TOP)
    assert last == (tool.WIDTH - tool.RIGHT, tool.HEIGHT - tool.BOTTOM)


@pytest.mark.parametrize(
    ("highest", "wanted"),
    [
        (8.3, [0, 2, 4, 6, 8, 10]),
        (220, [0, 50, 100, 150, 200, 250]),
        (0.01, [0, 0.002, 0.004, 0.006, 0.008, 0.01]),
    ],
)
def test_ticks_are_round(tool: ModuleType, highest: float, wanted: list[float]) -> None:
    assert tool.ticks(highest) == pytest.approx(wanted)
