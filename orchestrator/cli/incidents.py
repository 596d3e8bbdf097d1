"""`holdfast incident`: what people were told about, from its beginning to its end."""

from __future__ import annotations

import click

from orchestrator.cli.output import output_option, say, show_data, show_one, show_rows
from orchestrator.cli.session import Session
from orchestrator.errors import UserError


@click.group()
def incident() -> None:
    """See incidents."""


@incident.command("list")
@click.option("--all", "all_", is_flag=True, help="Also those that are over.")
@output_option
@click.pass_obj
def list_incidents(session: Session, output: str, *, all_: bool) -> None:
    """List the open incidents."""
    from orchestrator.cli.views import INCIDENT_COLUMNS, incident_row

    rows = [incident_row(one) for one in session.ledger.incidents(open_only=not all_)]
    show_rows(rows, INCIDENT_COLUMNS, output)
    if not rows and not all_:
        say("No incident is open; --all shows those that are over.")


@incident.command()
@click.argument("number", type=int)
@output_option
@click.pass_obj
def show(session: Session, number: int, output: str) -> None:
    """Show one incident, its runbook, and what happened since to what it is about."""
    from orchestrator.cli.views import EVENT_COLUMNS, event_row, incident_row

    known = {one.number: one for one in session.ledger.incidents(open_only=False)}
    if number not in known:
        raise UserError(f"there is no incident {number}; see `holdfast incident list --all`")
    found = known[number]
    story = session.ledger.story(found.subject, since=found.opened_at)
    if found.closed_at is not None:
        story = [event for event in story if event.at <= found.closed_at]
    rows = [event_row(event) for event in story]
    if output != "table":
        show_data({**incident_row(found), "story": rows}, output)
        return
    show_one(incident_row(found), output)
    click.echo()
    show_rows(rows, EVENT_COLUMNS, output)
    say(f"What to do: holdfast runbook show {found.page.value}")
