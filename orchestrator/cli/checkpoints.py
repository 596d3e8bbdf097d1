"""`holdfast checkpoint`: what a vault holds, and whether it is what was written.

Needs no configuration, no ledger and, but for `digest`, nothing beside the base requirements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from orchestrator.cli.output import output_option, say, show_data, show_rows
from orchestrator.errors import PermanentError, UserError

LIST_COLUMNS = {
    "SEQ": "seq",
    "STEP": "step",
    "ATTEMPT": "attempt",
    "PARENT": "parent",
    "LAYOUT": "layout",
    "WORLD": "world_size",
    "BYTES": "bytes",
    "BY": "by",
    "COUNTS": "counts",
    "STATE": "state",
    "REASON": "reason",
}
VERIFY_COLUMNS = {
    "SEQ": "seq",
    "STEP": "step",
    "PARTS": "parts",
    "BYTES": "bytes",
    "STATE": "state",
    "REASON": "problems",
}

Function = TypeVar("Function", bound=Callable[..., Any])


def _url(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from orchestrator.config.scalars import store_url

    if value is None:
        return None
    try:
        return store_url(value, Path.cwd())
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def vault_arguments(function: Function) -> Function:
    """Give a command URL and `--register`."""
    register = click.option(
        "--register", callback=_url, help="Where the commit register is, if not in the vault."
    )
    return click.argument("url", callback=_url)(register(function))


@click.group()
def checkpoint() -> None:
    """See and verify checkpoints; URL is a folder or file:///PATH."""


@checkpoint.command("list")
@vault_arguments
@output_option
def list_checkpoints(url: str, register: str | None, output: str) -> None:
    """List every commit record, also those that do not count."""
    from orchestrator.runtime.vault import list_commits

    rows = [asdict(row) for row in list_commits(url, register)]
    show_rows(rows, LIST_COLUMNS, output)


@checkpoint.command()
@vault_arguments
@click.option("--seq", type=click.IntRange(min=1), help="Only the commit with this number.")
@output_option
def verify(url: str, register: str | None, seq: int | None, output: str) -> None:
    """Read checkpoints whole and compare every hash; exit 1 if one is damaged."""
    from orchestrator.runtime.vault import verify as verify_commits

    reports = verify_commits(url, seq, register)
    rows = [{**asdict(one), "state": "ok" if one.ok else "damaged"} for one in reports]
    show_rows(rows, VERIFY_COLUMNS, output)
    damaged = [one.seq for one in reports if not one.ok]
    if damaged:
        raise PermanentError(f"{len(damaged)} of {len(reports)} commits are damaged")
    if not reports:
        raise UserError(f"there is no checkpoint to verify at {url}")
    say(f"{len(reports)} commits verify")


@checkpoint.command()
@vault_arguments
@click.option("--seq", type=click.IntRange(min=1), help="Not of the newest commit.")
@output_option
def digest(url: str, register: str | None, seq: int | None, output: str) -> None:
    """Print the SHA-256 of the weights: name, dtype, shape, bytes of each tensor, by name."""
    from orchestrator.runtime.weights import weights_digest

    found = weights_digest(url, seq, register)
    if output == "table":
        click.echo(found)
    else:
        show_data({"url": url, "seq": seq, "digest": found}, output)
