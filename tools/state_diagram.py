"""Print the node states and their lawful moves as a Mermaid diagram, from `MOVES` itself.

ARCHITECTURE.md holds its output between two markers; `python tools/state_diagram.py --write` puts
it there, and a test compares.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.core.nodes import MOVES

BEGIN, END = "<!-- moves: begin -->", "<!-- moves: end -->"
DOCUMENT = Path(__file__).parent.parent / "ARCHITECTURE.md"


def diagram() -> str:
    """Return the Mermaid text."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for start, ends in MOVES.items():
        lines += [f"    {_name(start)} --> {_name(end)}" for end in MOVES if end in ends]
    return "\n".join([*lines, "```"])


def _name(state: str) -> str:
    return state.replace("-", "_")


def written(text: str) -> str:
    """Return the document with the diagram between its markers."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{diagram()}\n{END}{tail}"


def main() -> None:
    """Print the diagram, or write it into ARCHITECTURE.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        DOCUMENT.write_text(written(DOCUMENT.read_text()))
    else:
        print(diagram())


if __name__ == "__main__":
    main()
