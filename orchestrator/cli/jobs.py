"""`holdfast job`: submit a job, see how it goes, read its logs, stop it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.ask import (
    by_option,
    confirm,
    order,
    place_order,
    reason_option,
    tell_answer,
    yes_option,
)
from orchestrator.cli.find import find_job, unknown, waiting
from orchestrator.cli.output import output_option, say, show_one, show_rows
from orchestrator.cli.promote import promote
from orchestrator.cli.session import Session
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.config import JobFile

USEFUL = """Useful commands:
  holdfast job show {name}
  holdfast job logs {name} -f
  holdfast why {name}
  holdfast job stop {name}"""


@click.group()
def job() -> None:
    """Submit jobs, and see how they go."""


@job.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Another name than the file's.")
@click.option("--wait", is_flag=True, help="Wait for its end: exit 0 if it succeeded, else 1.")
@reason_option
@by_option
@click.pass_obj
def submit(
    session: Session, file: Path, name: str | None, by: str, reason: str, *, wait: bool
) -> None:
    """Submit a job file."""
    from orchestrator.cli.waiting import wait_for
    from orchestrator.config import load_job
    from orchestrator.core.observations import OrderKind
    from orchestrator.core.submission import plain as plain_spec

    wish = load_job(file, name=name)
    _check_against_fleet(session, file, wish)
    body = plain_spec(wish.to_spec())
    number = place_order(session, OrderKind.SUBMIT, wish.name, (by, reason), body)
    tell_answer(session, number)
    say(USEFUL.format(name=wish.name))
    if wait:
        wait_for(session, wish.name, number)


def _check_against_fleet(session: Session, file: Path, wish: JobFile) -> None:
    """Refuse what can never run in this fleet, before anybody waits for it."""
    clusters = {str(cluster.name): cluster for cluster in session.settings.clusters}
    for name in wish.clusters:
        if name not in clusters:
            error = unknown("cluster", name, clusters)
            raise UserError(f"{file}: clusters: {error}")
    _check_name(session, file, wish.name)
    wanted = wish.to_spec().nodes_min
    allowed = [one for name, one in clusters.items() if not wish.clusters or name in wish.clusters]
    usable = [one for one in allowed if wish.accelerator in (None, one.sku)]
    if max((len(one.node_names) for one in usable), default=0) < wanted:
        kind = f" of {wish.accelerator}" if wish.accelerator else ""
        say(f"warning: no allowed cluster has {wanted} nodes{kind}; the job will wait")


def _check_name(session: Session, file: Path, name: str) -> None:
    taken = next((one for one in session.ledger.jobs() if one.name == name), None)
    state = taken.state.value if taken else "submitted" if waiting(session.ledger, name) else None
    if state is not None:
        raise UserError(
            f"{file}: name: {name!r} is taken by a job that is {state}; "
            "one run has one name for ever: give --name"
        )


@job.command("list")
@click.option("--all", "all_", is_flag=True, help="Also those that are over.")
@output_option
@click.pass_obj
def list_jobs(session: Session, output: str, *, all_: bool) -> None:
    """List jobs with attempt, generation and step."""
    from orchestrator.cli.views import JOB_COLUMNS, job_row
    from orchestrator.core.jobs import OVER

    fleet, attempts = session.fleet(), session.ledger.attempts()
    jobs = [one for one in session.ledger.jobs() if all_ or one.state not in OVER]
    show_rows([job_row(one, fleet, attempts) for one in jobs], JOB_COLUMNS, output)


@job.command()
@click.argument("name", metavar="JOB")
@output_option
@click.pass_obj
def show(session: Session, name: str, output: str) -> None:
    """Show one job: where it stands and what was asked for."""
    from orchestrator.cli.views import job_row, job_starts
    from orchestrator.core.submission import plain as plain_spec

    found = find_job(session.ledger, name)
    fleet, attempts = session.fleet(), session.ledger.attempts(name)
    row = {**job_row(found, fleet, attempts), "starts": job_starts(found, fleet, attempts)}
    spec: dict[str, Any] = plain_spec(found.spec)
    launch = {**spec.pop("launch")}
    launch["env"] = sorted(launch.get("env", {}))  # names only: values may be private
    if output != "table":
        show_one({**row, "spec": {**spec, "launch": launch}}, output)
        return
    show_one(
        {**row, **{k: v for k, v in {**launch, **spec}.items() if v not in (None, (), {})}}, output
    )


@job.command()
@click.argument("name", metavar="JOB")
@yes_option
@reason_option
@by_option
@click.pass_obj
def stop(session: Session, name: str, reason: str, by: str, *, yes: bool) -> None:
    """End a job for good: its ranks get SIGTERM, and SIGKILL after its grace."""
    from orchestrator.core.observations import OrderKind

    find_job(session.ledger, name)
    confirm(f"Stop {name}? It never starts again under this name.", yes=yes)
    order(session, OrderKind.STOP, name, by=by, reason=reason)


@job.command()
@click.argument("name", metavar="JOB")
@click.option("--rank", type=click.IntRange(min=0), help="Only of this rank.")
@click.option("--attempt", type=click.IntRange(min=1), help="Not of the newest attempt.")
@click.option("--generation", type=click.IntRange(min=1), help="Not of the newest generation.")
@click.option("--tail", default=200, show_default=True, help="Lines of each to begin with.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
@click.pass_obj
def logs(session: Session, /, name: str, **wishes: Any) -> None:
    """Show what the ranks of a job wrote."""
    from orchestrator.cli.logs import Wish, show_logs

    show_logs(session, find_job(session.ledger, name), Wish(**wishes))


job.add_command(promote)
