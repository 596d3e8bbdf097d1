"""Draw the recorded learning curves of `docs/curves/curves.json` as SVG files beside it.

    python tools/plot_curves.py

A curve is a list of [step, loss] pairs as the training program printed them; "from" says by which
command. A picture is a function of the file, and a test holds the committed ones equal to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "curves"
WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 40, 44  #: margins, pixels
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
)  #: Okabe and Ito's, told apart by all
TICKS = 6

Point = Sequence[float]


def main() -> None:
    """Draw every figure of the file."""
    for name, svg in drawn(json.loads((FOLDER / "curves.json").read_text("utf-8"))).items():
        (FOLDER / name).write_text(svg, "utf-8")


def drawn(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the pictures by file name."""
    return {f"{name}.svg": picture(figure) for name, figure in figures.items()}


def picture(figure: Mapping[str, Any]) -> str:
    """Return one figure: its curves over one pair of axes."""
    curves: Mapping[str, Sequence[Point]] = figure["curves"]
    points = [point for curve in curves.values() for point in curve]
    across = ticks(max(point[0] for point in points))
    up = ticks(max(point[1] for point in points))

    def place(point: Point) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point[0] / across[-1]
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * point[1] / up[-1]
        return f"{x:.1f},{y:.1f}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(WIDTH / 2, 18, figure["title"], "middle"),
    ]
    lines += grid(across, up, place)
    lines.append(text(WIDTH / 2, HEIGHT - 8, figure["across"], "middle"))
    lines.append(text(8, TOP - 10, figure["up"], "start"))
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(point) for point in curve)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(text(WIDTH - RIGHT - 8, TOP + 14 + 16 * number, name, "end", colour))
    return "\n".join([*lines, "</svg>", ""])


def grid(across: Sequence[float], up: Sequence[float], place: Any) -> Iterable[str]:
    """Yield the lines and the numbers behind the curves."""
    for value in up:
        left, right = place((0.0, value)).split(","), place((across[-1], value)).split(",")
        yield rule(left, right)
        yield text(LEFT - 6, float(left[1]) + 4, f"{value:g}", "end")
    for value in across:
        below, above = place((value, 0.0)).split(","), place((value, up[-1])).split(",")
        yield rule(below, above)
        yield text(float(below[0]), HEIGHT - BOTTOM + 16, f"{value:g}", "middle")


def rule(begin: Sequence[str], end: Sequence[str]) -> str:
    """Return a thin line."""
    ends = f'x1="{begin[0]}" y1="{begin[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line {ends} stroke="#dddddd"/>'


def text(x: float, y: float, words: str, anchor: str, colour: str = "#333333") -> str:
    """Return words at a place."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(words)}</text>"


def ticks(highest: float) -> list[float]:
    """Return round numbers from 0 to at least `highest`, a few of them."""
    step = next(
        base * 10.0**power
        for power in range(-3, 7)
        for base in (1.0, 2.0, 5.0)
        if base * 10.0**power * TICKS >= highest
    )
    count = next(number for number in range(1, TICKS + 1) if number * step >= highest)
    return [round(number * step, 6) for number in range(count + 1)]


if __name__ == "__main__":
    main()
