"""How commands show data: the same rows as a table, as JSON or as YAML.

Data goes to stdout and talk to stderr. Columns are in capitals, one row is one thing; colour only
on a terminal, and never with NO_COLOR. Text that came from a node is shown without its control
characters: a log line must not steer the terminal of whoever reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDTH = 4_000  #: of a line that no terminal bounds
Row = Mapping[str, Any]

#: Words that mean good, careful, bad and idle, wherever they stand in a state column.
STYLES: Mapping[str, str] = {
    **dict.fromkeys(("in-use", "running", "succeeded", "open", "fit", "ok", "done"), "green"),
    **dict.fromkeys(("spare", "standby", "closed", "stopped"), "cyan"),
    **dict.fromkeys(
        ("burn-in", "probation", "draining", "pending", "opening", "closing", "suspect"), "yellow"
    ),
    **dict.fromkeys(("quarantined", "repairing", "failed", "unfit", "retired", "lost"), "red"),
}

Function = TypeVar("Function", bound=Callable[..., Any])


def say(text: str) -> None:
    """Talk to the person, on stderr; data alone goes to stdout."""
    click.echo(text, err=True)


def output_option(function: Function) -> Function:
    """Give a reading command `-o table|json|yaml` (parameter `output`)."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to show the data.",
    )(function)


def show_rows(rows: Sequence[Row], columns: Mapping[str, str], output: str) -> None:
    """Show things, one a row; `columns` maps a table's headers to the rows' keys."""
    if output != "table":
        show_data(list(rows), output)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    last = list(columns)[-1]
    for header in columns:
        table.add_column(header, no_wrap=header != last, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns.values()))
    _print(table)


def show_one(row: Row, output: str) -> None:
    """Show one thing, a line for each of its keys."""
    if output != "table":
        show_data(row, output)
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for key, value in row.items():
        table.add_row(key.replace("_", " ").upper(), _cell(value))
    _print(table)


def _print(table: Table) -> None:
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:  # rich pads every line to the width of its table
        out.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show_data(data: Any, output: str) -> None:
    """Write plain data as JSON or YAML."""
    if output == "json":
        click.echo(json.dumps(plain(data), indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(plain(data), sort_keys=False, allow_unicode=True), nl=False)


def plain(value: Any) -> Any:
    """Return a value in JSON's own types: moments in ISO 8601, durations in seconds."""
    match value:
        case Enum():
            return value.name.lower() if isinstance(value.value, int) else value.value
        case None | bool() | int() | float() | str():
            return value
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case PurePath():
            return str(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted(plain(item) for item in value)
        case list() | tuple():
            return [plain(item) for item in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return plain(asdict(value))
        case _:
            return str(value)


def console(*, err: bool = False) -> Console:
    """Return where to print: as wide as its terminal, or without bounds."""
    from rich.console import Console

    made = Console(stderr=err, highlight=False, markup=False, emoji=False)
    return (
        made
        if made.is_terminal
        else Console(stderr=err, highlight=False, markup=False, emoji=False, width=WIDTH)
    )


def clean(text: str) -> str:
    """Return text without control characters, on one line."""
    return "".join(c if c.isprintable() else " " for c in text)


def moment(at: datetime | None) -> str:
    """Return a moment as people read it, on this computer's clock."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(length: timedelta) -> str:
    """Return a duration in its two largest units: 2d3h, 5m20s, 0.4s."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return f"{seconds:.1f}s"
    for unit, size, below, small in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if seconds >= size:
            rest = int(seconds % size // small)
            return f"{int(seconds // size)}{unit}" + (f"{rest}{below}" if rest else "")
    return f"{int(seconds)}s"


def age(at: datetime | None, now: datetime) -> str:
    """Return how long ago a moment was."""
    return "-" if at is None else span(now - at)


def _cell(value: Any) -> Text:
    from rich.text import Text

    said = plain(value)
    if isinstance(value, datetime):
        text = moment(value)
    elif isinstance(said, list):
        text = ", ".join(str(item) for item in said) or "-"
    elif isinstance(said, dict):
        text = ", ".join(f"{key}: {item}" for key, item in said.items()) or "-"
    else:
        text = "-" if said in (None, "") else str(said)
    return Text(clean(text), style=STYLES.get(text, ""))
