"""`holdfast status` and `holdfast plan`: the fleet on one page, and what would be decided now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from orchestrator.cli.output import moment, output_option, plain, say, show_data, show_rows
from orchestrator.cli.session import Session

UNHEALTHY = 3  #: exit code of `status --check`


@click.command()
@click.option("--check", is_flag=True, help="Exit with 3 if something needs a person.")
@output_option
@click.pass_context
def status(context: click.Context, output: str, *, check: bool) -> None:
    """Show clusters, jobs, open incidents, and who acts."""
    page = _page(context.ensure_object(Session))
    if output == "table":
        _show_page(page)
    else:
        show_data(page, output)
    if check and page["problems"]:
        context.exit(UNHEALTHY)


def _page(session: Session) -> dict[str, Any]:
    from orchestrator.cli.phases import cohort_row, outlooks
    from orchestrator.cli.views import cluster_row, controller_row, incident_row, job_row
    from orchestrator.core.jobs import OVER

    fleet, ledger = session.fleet(), session.ledger
    attempts = ledger.attempts()
    jobs = [job for job in ledger.jobs() if job.state not in OVER] or list(ledger.jobs())[-5:]
    page: dict[str, Any] = {
        "controller": controller_row(ledger.holder(), fleet.now),
        "clusters": [cluster_row(one, fleet) for one in session.clusters],
        "cohorts": [cohort_row(one) for one in outlooks(fleet).values()],
        "jobs": [job_row(job, fleet, attempts) for job in jobs],
        "incidents": [incident_row(one) for one in ledger.incidents(open_only=True)],
    }
    return {**page, "problems": _problems(page)}


def _problems(page: dict[str, Any]) -> list[str]:
    """Return what needs a person: no controller, or an incident that wakes one."""
    found = [] if page["controller"]["alive"] else ["no controller runs: holdfast daemon run"]
    urgent = [one for one in page["incidents"] if plain(one["urgency"]) == "page"]
    return found + [
        f"incident {one['number']} {one['page']} on {one['subject']}: {one['reason']}"
        for one in urgent
    ]


def _show_page(page: dict[str, Any]) -> None:
    from orchestrator.cli.phases import COHORT_COLUMNS
    from orchestrator.cli.views import CLUSTER_COLUMNS, INCIDENT_COLUMNS, JOB_COLUMNS

    holder = page["controller"]
    acts = f"{_who(holder['name'])}, token {holder['token']}" if holder["alive"] else "nobody"
    click.echo(f"CONTROLLER  {acts}\n")
    show_rows(page["clusters"], CLUSTER_COLUMNS, "table")
    if page["cohorts"]:
        click.echo()
        show_rows(page["cohorts"], COHORT_COLUMNS, "table")
    if page["jobs"]:
        click.echo()
        show_rows(page["jobs"], JOB_COLUMNS, "table")
    if page["incidents"]:
        click.echo()
        show_rows(page["incidents"], INCIDENT_COLUMNS, "table")
    for problem in page["problems"]:
        say(f"! {problem}")


def _who(name: str) -> str:
    """Shorten HOST/BOOT/PID/START, as the daemon names itself, to what a person can look up."""
    parts = name.split("/")
    return f"{parts[0]}, process {parts[2]}" if len(parts) == 4 else name


@click.command()
@output_option
@click.pass_obj
def plan(session: Session, output: str) -> None:
    """Say what the controller would decide on what the ledger holds now; change nothing.

    These are the very decisions: the same function decides in the daemon. Decisions that only
    change the ledger may lead to further ones, which show at the next look.
    """
    from orchestrator.core.assess import assess
    from orchestrator.core.explain import explain, explain_fleet
    from orchestrator.core.reconcile import reconcile

    fleet = session.fleet()
    waiting = session.ledger.orders_open()
    fleet = replace(fleet, beliefs=assess(fleet.beliefs, waiting, fleet.now))
    found = reconcile(fleet, session.settings.core_policy)
    rows = [
        {"kind": type(one).__name__, "sentence": explain(one), "decision": plain(one)}
        for one in found.decisions
    ]
    if output != "table":
        show_data({"decisions": rows, "look_again_at": found.look_again_at}, output)
        return
    for row in rows:
        click.echo(row["sentence"])
    if not rows:
        say("Nothing to do: the fleet is as it should be.")
        for sentence in explain_fleet(fleet, session.settings.core_policy):
            say(f"  {sentence}")
    if found.look_again_at is not None:
        say(f"Time alone changes something at {moment(found.look_again_at)}.")
