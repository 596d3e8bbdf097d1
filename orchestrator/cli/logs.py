"""`holdfast job logs`: the ranks' own output, from the folders of local nodes."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import clean, say
from orchestrator.core.jobs import OVER, Attempt, Job
from orchestrator.errors import UserError
from orchestrator.runtime.place import Place

if TYPE_CHECKING:
    from orchestrator.cli.session import Session

FOLLOW_PAUSE = 0.3  #: seconds between two looks at the files
READ_MAX = 16_000_000  #: bytes of one file looked at for its last lines
LOG_NAME = re.compile(r"g(\d+)\.r(\d+)\.log")


@dataclass(frozen=True, slots=True)
class Wish:
    """Which logs a person wants to see."""

    rank: int | None
    attempt: int | None
    generation: int | None
    tail: int
    follow: bool


@dataclass(frozen=True, slots=True, order=True)
class Log:
    """One rank's output in one generation."""

    generation: int
    rank: int
    node: str
    path: Path


@dataclass(slots=True)
class _Reader:
    """Shows files from where it left off."""

    tail: int
    many: bool = False
    _offsets: dict[Path, int] = field(default_factory=dict)

    def show(self, log: Log) -> None:
        """Write what is new in one file; the first time only its last lines."""
        size = log.path.stat().st_size
        start = self._offsets.get(log.path)
        self._offsets[log.path] = size
        with log.path.open("rb") as file:
            file.seek(max(0, size - READ_MAX) if start is None else start)
            lines = file.read(size - file.tell()).decode(errors="replace").splitlines()
        if start is None:
            lines = lines[-self.tail :] if self.tail else []
        self.many = self.many or len(self._offsets) > 1
        prefix = f"[rank {log.rank}] " if self.many else ""
        for line in lines:
            # a terminal is not steered by what a job prints; a file gets the bytes as they are
            click.echo(prefix + (clean(line) if sys.stdout.isatty() else line))


def find_logs(session: Session, attempt: Attempt) -> list[Log]:
    """Return every log of an attempt that lies on this computer, oldest generation first."""
    folder = session.settings.cluster_folder(attempt.cluster)
    run = f"{attempt.job}.{attempt.number}"
    return sorted(
        Log(int(name[1]), int(name[2]), home.name, path)
        for home in folder.glob("*")
        for path in Place(home, run).logs.glob("g*.r*.log")
        if (name := LOG_NAME.fullmatch(path.name))
    )


def show_logs(session: Session, job: Job, wish: Wish) -> None:
    """Show the logs of a job; raises `UserError` if there are none of what was asked for."""
    attempt = _attempt(session, job, wish.attempt)
    logs = _chosen(find_logs(session, attempt), wish)
    if not logs and not wish.follow:
        raise UserError(
            f"no rank of {job.name}/{attempt.number} has written anything on this computer"
            + (" that you asked for" if (wish.rank, wish.generation) != (None, None) else "")
        )
    reader = _Reader(wish.tail, many=len(logs) > 1)
    for log in logs:
        reader.show(log)
    while wish.follow:
        over = _is_over(session, job)  # before the files, so that the last lines are not missed
        for log in _chosen(find_logs(session, attempt), wish):
            reader.show(log)
        if over:
            return
        time.sleep(FOLLOW_PAUSE)
        attempt = _attempt(session, job, wish.attempt)


def _attempt(session: Session, job: Job, number: int | None) -> Attempt:
    known = {one.number: one for one in session.ledger.attempts(job.name)}
    if not known:
        raise UserError(f"{job.name} has not been started yet; it is {job.state}: {job.reason}")
    if number is not None and number not in known:
        raise UserError(f"{job.name} has no attempt {number}; see `holdfast attempt list`")
    return known[max(known) if number is None else number]


def _chosen(logs: list[Log], wish: Wish) -> list[Log]:
    if wish.rank is not None:
        logs = [log for log in logs if log.rank == wish.rank]
    newest = max((log.generation for log in logs), default=0)
    generation = newest if wish.generation is None else wish.generation
    return [log for log in logs if log.generation == generation]


def _is_over(session: Session, job: Job) -> bool:
    now = next((one for one in session.ledger.jobs() if one.name == job.name), job)
    if now.state in OVER:
        say(f"{now.name} {now.state}")
    return now.state in OVER
