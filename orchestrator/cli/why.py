"""`holdfast why`: the story of a node, a job, an attempt, a cluster or a detector, in order."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.durations import duration_option
from orchestrator.cli.find import unknown
from orchestrator.cli.output import output_option, show_data, show_one, show_rows
from orchestrator.cli.session import Session
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.core.fleet import Fleet


@click.command()
@click.argument("subject", metavar="NODE|JOB|JOB/ATTEMPT|CLUSTER|DETECTOR")
@duration_option("--since", "Only the last while, such as 30m or 2h.")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 100_000))
@output_option
@click.pass_obj
def why(session: Session, subject: str, since: timedelta | None, limit: int, output: str) -> None:
    """Tell what happened to something: the evidence, the decision and the time of each."""
    from orchestrator.cli.views import EVENT_COLUMNS, event_row

    fleet = session.fleet()
    after = None if since is None else fleet.now - since
    events = session.ledger.story(subject, since=after, limit=limit)
    now = _now(session, fleet, subject)
    if now is None and not session.ledger.story(subject, limit=1):
        raise _nobody(session, fleet, subject)
    rows = [event_row(event) for event in events]
    if output != "table":
        show_data({"subject": subject, "now": now, "story": rows}, output)
        return
    if now is not None:
        show_one(now, output)
        click.echo()
    show_rows(rows, EVENT_COLUMNS, output)


def _now(session: Session, fleet: Fleet, subject: str) -> dict[str, Any] | None:
    """Return where the thing stands now, with the evidence; None if there is no such thing."""
    from orchestrator.cli.detectors import detector_row
    from orchestrator.cli.views import attempt_row, bad_findings, cluster_row, job_row, node_reason

    for node in fleet.nodes.values():
        if node.name == subject:
            evidence = [
                f"{one.severity.name} {one.detector} on {one.component} "
                f"at {one.observed_at.isoformat(timespec='seconds')}: {one.evidence}"
                for one in bad_findings(node, fleet)
            ]
            reason = node_reason(node, fleet.now)
            return {"node": node.name, "state": node.state, "reason": reason, "evidence": evidence}
    for job in session.ledger.jobs():
        if job.name == subject:
            return job_row(job, fleet, session.ledger.attempts(job.name))
    for attempt in session.ledger.attempts():
        if subject == f"{attempt.job}/{attempt.number}":
            return attempt_row(attempt)
    for cluster in session.clusters:
        if cluster.name == subject:
            return cluster_row(cluster, fleet)
    if subject in fleet.beliefs.detectors:
        return detector_row(fleet, session.settings.core_policy, subject)
    return None


def _nobody(session: Session, fleet: Fleet, subject: str) -> UserError:
    jobs = [str(job.name) for job in session.ledger.jobs()]
    attempts = [f"{one.job}/{one.number}" for one in session.ledger.attempts()]
    clusters = [str(cluster.name) for cluster in session.clusters]
    known = [*map(str, fleet.nodes), *jobs, *attempts, *clusters, *fleet.beliefs.detectors]
    return unknown("node, job, attempt, cluster or labelled detector", subject, known)
