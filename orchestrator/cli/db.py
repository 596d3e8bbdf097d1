"""`holdfast db`: the ledger's database."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.output import say
from orchestrator.cli.session import Session

SQLITE = "sqlite:///"


@click.group()
def db() -> None:
    """Look after the ledger's database."""


@db.command()
@click.pass_obj
def upgrade(session: Session) -> None:
    """Bring an older ledger to this version's schema. Stop the daemon and back it up first."""
    from orchestrator.ledger.schema import upgrade as bring_up

    url = session.settings.ledger_url
    if url.startswith(SQLITE):
        Path(url.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    revision = bring_up(url)
    say(f"The ledger has schema {revision}, which this version needs.")
