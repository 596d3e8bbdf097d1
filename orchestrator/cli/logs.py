"""`holdfast job logs`: the ranks' own output, wherever its nodes are."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import clean, say
from orchestrator.cli.ranklogs import Log, Nodes, Source, newest, open_source
from orchestrator.core.jobs import OVER, Attempt, Job
from orchestrator.errors import UserError
from orchestrator.runtime.ranklogs import Piece

if TYPE_CHECKING:
    from orchestrator.cli.session import Session

PAUSE_HERE, PAUSE_AWAY = 0.3, 2.0  #: seconds between two looks at files, at nodes
BACK_MAX = 16_000_000  #: bytes of one log looked at for its last lines, if its node gives so much


@dataclass(frozen=True, slots=True)
class Wish:
    """Which logs a person wants to see."""

    rank: int | None
    attempt: int | None
    generation: int | None
    tail: int
    follow: bool


@dataclass(slots=True)
class _Reader:
    """Shows logs from where it left off, in whole lines."""

    source: Source
    tail: int
    many: bool = False
    _at: dict[Log, int] = field(default_factory=dict)
    _rest: dict[Log, bytes] = field(default_factory=dict)  #: a line whose end was not written yet

    def show(self, logs: list[Log], *, last: bool) -> None:
        """Write what is new; of a log seen for the first time only its last lines.

        With `last` a line without an end is written too.
        """
        self.many = self.many or len({*self._at, *logs}) > 1
        more = {log: self._at.get(log, -BACK_MAX) for log in logs}
        while more:
            pieces = self.source.read(more)
            for log in [log for log in logs if log in pieces]:
                self._take(log, pieces[log])
                if last and self._at[log] >= pieces[log].size:
                    self._finish(log)
            more = {
                log: self._at[log]
                for log, piece in pieces.items()
                if piece.data and self._at[log] < piece.size
            }

    def _finish(self, log: Log) -> None:
        rest = self._rest.pop(log, b"")
        self._write(log, [rest] if rest else [])

    def _take(self, log: Log, piece: Piece) -> None:
        first, going_on = log not in self._at, piece.at == self._at.get(log)
        lines = ((self._rest.get(log, b"") if going_on else b"") + piece.data).split(b"\n")
        self._at[log] = piece.at + len(piece.data)
        self._rest[log] = lines.pop()
        if first:
            whole = lines[1:] if piece.at else lines
            kept = self.tail - bool(self._rest[log])
            lines = whole[-kept:] if kept > 0 else []
            self._rest[log] = self._rest[log] if self.tail else b""
        self._write(log, lines)

    def _write(self, log: Log, lines: list[bytes]) -> None:
        prefix = f"[rank {log.rank}] " if self.many else ""
        for line in lines:
            text = line.decode(errors="replace").removesuffix("\r")
            # a terminal is not steered by what a job prints; a file gets the bytes as they are
            click.echo(prefix + (clean(text) if sys.stdout.isatty() else text))


def show_logs(session: Session, job: Job, wish: Wish) -> None:
    """Show the logs of a job; raises `UserError` if there are none of what was asked for."""
    attempt = _attempt(session, job, wish.attempt)
    reader = _Reader(open_source(session, attempt), wish.tail)
    logs = _chosen(reader.source.look(), wish)
    silent = dict(_tell_silent(reader.source, {}))
    if not logs and not wish.follow:
        where = "on this computer" if not isinstance(reader.source, Nodes) else "on a node we hear"
        raise UserError(
            f"no rank of {job.name}/{attempt.number} has written anything {where}"
            + (" that you asked for" if (wish.rank, wish.generation) != (None, None) else "")
        )
    reader.show(logs, last=not wish.follow)
    while wish.follow:
        over = _is_over(session, job)  # before the files, so that the last lines are not missed
        reader.show(_chosen(reader.source.look(), wish), last=over)
        silent = dict(_tell_silent(reader.source, silent))
        if over:
            return
        time.sleep(PAUSE_AWAY if isinstance(reader.source, Nodes) else PAUSE_HERE)
        now = _attempt(session, job, wish.attempt)
        if now.number != attempt.number:
            say(f"attempt {now.number}, on {now.cluster}")
            attempt, reader = now, _Reader(open_source(session, now), wish.tail, many=reader.many)


def _tell_silent(source: Source, told: Mapping[str, str]) -> Mapping[str, str]:
    """Say which nodes do not answer, once each; return them."""
    now = source.silent if isinstance(source, Nodes) else {}
    for node in sorted(now.keys() - told.keys()):
        say(f"warning: {clean(now[node])}: its logs are not shown")
    return now


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
    generation = newest(logs) if wish.generation is None else wish.generation
    return [log for log in logs if log.generation == generation]


def _is_over(session: Session, job: Job) -> bool:
    now = next((one for one in session.ledger.jobs() if one.name == job.name), job)
    if now.state in OVER:
        say(f"{now.name} {now.state}")
    return now.state in OVER
