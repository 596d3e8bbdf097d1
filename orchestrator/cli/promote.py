"""`holdfast job promote`: go on from a replica whose vault is lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.ask import (
    by_option,
    confirm,
    place_order,
    reason_option,
    tell_answer,
    yes_option,
)
from orchestrator.cli.find import find_job
from orchestrator.cli.output import say
from orchestrator.cli.session import Session
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.runtime.lineage import Commit


def _replica(_: click.Context, __: click.Parameter, value: str) -> str:
    from orchestrator.config.scalars import store_url

    try:
        return store_url(value, Path.cwd())
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("name", metavar="JOB")
@click.option("--to", callback=_replica, required=True, help="One of the job's `replicas`.")
@click.option(
    "--lost",
    is_flag=True,
    help="You vouch that the old vault is lost: begin without proof that the old ranks ended.",
)
@yes_option
@reason_option
@by_option
@click.pass_obj
def promote(session: Session, /, name: str, to: str, *, lost: bool, yes: bool, **who: str) -> None:
    """Let a job go on from one of its replicas, for good: its vault and register are there then.

    The running attempt is given up. The next one begins at the newest checkpoint that is whole in
    the replica, once nothing of the old one is left; what was committed after it is lost.
    """
    from orchestrator.core.observations import OrderKind

    job = find_job(session.ledger, name)
    if to not in job.spec.launch.get("replicas", ()):
        known = ", ".join(job.spec.launch.get("replicas", ())) or "none"
        raise UserError(f"--to: {to} is no replica of {name}; it has: {known}")
    commit = _newest(to)
    age = max(0.0, time.time() - commit.at) / 60
    confirm(
        f"{name} goes on from step {commit.step}, committed {age:.0f} minutes ago; later steps "
        "are lost. There is no way back. Promote?",
        yes=yes,
    )
    body = {"url": to, "lost": lost}
    tell_answer(
        session, place_order(session, OrderKind.PROMOTE, name, (who["by"], who["reason"]), body)
    )
    say(f"the newest checkpoint there is of step {commit.step}")


def _newest(url: str) -> Commit:
    """Return the newest commit that is whole in a replica, as far as sizes say."""
    from orchestrator.runtime.vault import VerificationError, open_vault

    vault = open_vault(url)
    for commit in reversed(vault.register.read().commits):
        try:
            vault.open(commit)
        except VerificationError:
            continue
        return commit
    raise UserError(f"--to: {url} holds no checkpoint that is whole")
