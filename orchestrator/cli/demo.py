"""`holdfast demo`: see training survive seven faults, on this computer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

STEPS_MAX = 60


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("holdfast-demo"),
    show_default=True,
    help="Where checkpoints, ledgers and pictures are kept.",
)
@click.option("--seed", default=1, show_default=True, help="When and in which order things break.")
@click.option("--data-seed", default=0, show_default=True, help="The order of the samples.")
@click.option(
    "--steps",
    type=click.IntRange(40, STEPS_MAX),
    default=STEPS_MAX,
    show_default=True,
    help="Training steps of each run.",
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def demo(out: Path, seed: int, data_seed: int, steps: int, output: str) -> None:
    """Train undisturbed, then again while seven things break, and compare the weights.

    Three local clusters of three nodes; the gang is two nodes with one rank each. Exit code 0 if
    both runs end with the very same weights.
    """
    from rich.console import Console

    from orchestrator.demo.show import Wishes, play

    console = Console(stderr=True, soft_wrap=True)
    wishes = Wishes(out.resolve(), steps, seed, data_seed)
    with _live(console, steps) as progress:
        result = play(wishes, console.print, progress)
    if output == "json":
        click.echo(json.dumps(result))
    else:
        _show(console, result)
    if not result["identical"] or result["orphans"]:
        sys.exit(1)


@contextmanager
def _live(console: Console, steps: int) -> Iterator[Callable[[str, int], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(bar_width=40),
        TextColumn("step {task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, Any] = {}

        def progress(name: str, step: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=steps)
            bar.update(tasks[name], completed=step)

        yield progress


def _show(console: Console, result: dict[str, Any]) -> None:
    from rich.table import Table

    from orchestrator.demo.show import table_rows

    table = Table("FAULT", "NOTICED", "RESUMED", "STEPS REPEATED", "DECISION", box=None)
    for cells in table_rows(result["faults"]):
        table.add_row(*cells)
    console.print()
    console.print(table)
    console.print(f"\nETTR {result['ettr']:.1%} (productive time over wall time, seven faults)")
    console.print(f"pictures, ledgers, checkpoints: {result['out']}")
    if result["identical"]:
        digest = result["final_digest"][:16]
        console.print(f"[bold green]✔ identical weights[/]: both runs end with {digest}…")
    else:
        console.print("[bold red]✘ the weights differ[/]: please report this folder")
