"""`holdfast attempt`: each launch of a job on a cluster."""

from __future__ import annotations

import click

from orchestrator.cli.find import find_job
from orchestrator.cli.output import output_option, show_rows
from orchestrator.cli.session import Session


@click.group()
def attempt() -> None:
    """See the launches of jobs."""


@attempt.command("list")
@click.argument("job", required=False)
@output_option
@click.pass_obj
def list_attempts(session: Session, job: str | None, output: str) -> None:
    """List every attempt, of one JOB or of all."""
    from orchestrator.cli.views import ATTEMPT_COLUMNS, attempt_row

    if job is not None:
        find_job(session.ledger, job)
    rows = [attempt_row(one) for one in session.ledger.attempts(job)]
    show_rows(rows, ATTEMPT_COLUMNS, output)
