"""`holdfast report`: what the fleet's money went to."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.durations import duration_option
from orchestrator.cli.find import find_job
from orchestrator.cli.output import output_option, say, show_data, show_rows
from orchestrator.cli.session import Session

if TYPE_CHECKING:
    from orchestrator.core.jobs import Job
    from orchestrator.core.timeline import Timeline

CAUSE_COLUMNS = {
    "CAUSE": "cause",
    "GPU-HOURS": "gpu_hours",
    "$": "dollars",
    "SHARE": "share",
    "GUESSED": "guessed",
}
JOB_COLUMNS = {
    "JOB": "job",
    "GPU-HOURS": "gpu_hours",
    "$": "dollars",
    "GOODPUT": "goodput",
    "ETTR": "ettr",
    "$ LOST": "lost_dollars",
}
WINDOW_COLUMNS = {"JOB": "job", "UNTIL": "until", "ETTR": "ettr"}
SHARES = frozenset({"share", "guessed", "goodput", "ettr"})


@click.group()
def report() -> None:
    """See what was paid, and what it went to."""


@report.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--by", type=click.Choice(["cause", "job"]), default="cause", show_default=True)
@duration_option("--since", "Only the last while, such as 24h or 7d; else all of each job's time.")
@duration_option("--window", "The ETTR of each window of that length instead, such as 1h.")
@output_option
@click.pass_obj
def goodput(
    session: Session,
    jobs: tuple[str, ...],
    by: str,
    since: timedelta | None,
    window: timedelta | None,
    output: str,
) -> None:
    """Book every GPU-second of some jobs (of all, if none is named) to one cause."""
    from orchestrator.core.statement import by_job, lines, total

    now = session.now()
    timelines, assumed = _timelines(session, jobs, now)
    if window is not None:
        _show_windows(timelines, window, now, since, output)
        return
    books = {
        name: timeline.all() if since is None else timeline.book(now - since, now)
        for name, timeline in timelines.items()
    }
    said = total(books.values())
    rows = by_job(books) if by == "job" else [line.row() for line in lines(books.values())]
    if output != "table":
        begin = min((book.since for book in books.values()), default=None)
        where = {"since": begin, "until": now, "jobs": list(books)}
        show_data({**where, **said, f"by_{by}": rows, "assumed": assumed}, output)
        return
    show_rows([_shown(row) for row in rows], JOB_COLUMNS if by == "job" else CAUSE_COLUMNS, output)
    for line in (*_talk(said), *(f"assumed: {one}" for one in assumed)):
        say(line)


def _timelines(
    session: Session, names: tuple[str, ...], now: datetime
) -> tuple[dict[str, Timeline], list[str]]:
    """Return each job's time as the ledger tells it, and what had to be assumed."""
    from orchestrator.core.timeline import Timeline
    from orchestrator.ledger.bookkeeping import read

    ledger = session.ledger
    wanted: list[Job] = [find_job(ledger, name) for name in names] or list(ledger.jobs())
    found, assumed = {}, []
    for job in wanted:
        facts = read(ledger, job, now)
        found[str(job.name)] = Timeline(facts.account(), now)
        assumed += [f"{job.name}: {one}" for one in facts.assumed]
    return found, assumed


def _show_windows(
    timelines: dict[str, Timeline],
    window: timedelta,
    now: datetime,
    since: timedelta | None,
    output: str,
) -> None:
    from orchestrator.core.accounts import MICROSECOND

    if window < timedelta(minutes=1):
        raise click.BadParameter("a window has at least one minute", param_hint="--window")
    rows = [
        {"job": name, "until": end, "ettr": None if ettr is None else round(ettr, 6)}
        for name, timeline in timelines.items()
        for end, ettr in timeline.sliding(window // MICROSECOND)
        if since is None or end > now - since
    ]
    show_rows(rows if output != "table" else [_shown(row) for row in rows], WINDOW_COLUMNS, output)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for people: shares in per cent."""
    return {
        key: f"{100 * value:.1f} %" if key in SHARES and value is not None else value
        for key, value in row.items()
    }


def _talk(said: dict[str, Any]) -> list[str]:
    share = "-" if said["goodput"] is None else f"{100 * said['goodput']:.1f} %"
    text = f"{said['gpu_hours']:,.1f} GPU-hours, ${said['dollars']:,.2f}, goodput {share}"
    bare = said["unpriced_gpu_hours"]
    missing = f"{bare:,.1f} GPU-hours have no price: set price_per_hour of their cluster"
    return [text, *([missing] if bare else [])]
