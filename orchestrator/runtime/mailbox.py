"""The agent's end of the heartbeats: what ranks say, one JSON line each, through a FIFO.

The user's script is a stranger: lines that are no heartbeat are counted and dropped, never an
error, and no flood fills the memory. The ranks' end is `heartbeats.py`.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import json
import math
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from orchestrator.runtime.paces import ROLE_MAX

LINE_MAX = 512  #: bytes of one heartbeat
READ_MAX = 262_144  #: bytes taken in one look; the rest waits for the next
JOURNAL_MAX = 4_000_000  #: bytes of progress.jsonl before it is turned over; one older is kept
EVENTS = frozenset(
    {"resumed", "commit", "commit-failed", "verification-failed", "fenced", "recovered"}
)


@dataclass(frozen=True)
class Beat:
    """A rank's progress."""

    rank: int
    phase: str
    step: int | None  #: last completed
    loss: float | None = None
    tokens_per_second: float | None = None
    data_wait: float | None = None  #: share of the step, 0 to 1
    pid: int | None = None
    own: float | None = None  #: seconds of the step without waiting for peers or samples
    role: str = ""  #: ranks of different roles are not compared


@dataclass(frozen=True)
class Event:
    """Something that happened to a rank, once."""

    rank: int
    kind: str  #: one of EVENTS
    step: int | None
    seq: int | None
    text: str
    pid: int | None = None
    stall_seconds: float | None = None  #: that a save stopped the training
    lag_seconds: float | None = None  #: from the boundary that it holds until it was durable


Message = Union[Beat, Event]


def parse(line: bytes) -> Message | None:
    """Read one line; None if it is not what a rank should say."""
    if len(line) > LINE_MAX:
        return None
    try:
        body = json.loads(line)
        rank = _whole(body["rank"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if rank is None:
        return None
    if "event" in body:
        return _event(rank, body)
    phase = body.get("phase")
    if not isinstance(phase, str) or not 0 < len(phase) <= 40:
        return None
    return Beat(
        rank=rank,
        phase=phase,
        step=_whole(body.get("step")),
        loss=_number(body.get("loss")),
        tokens_per_second=_number(body.get("tokens_per_second")),
        data_wait=_number(body.get("data_wait")),
        pid=_whole(body.get("pid")),
        own=_number(body.get("own")),
        role=str(body.get("role", ""))[:ROLE_MAX],
    )


def _event(rank: int, body: dict[str, Any]) -> Event | None:
    kind = body["event"]
    if not isinstance(kind, str) or kind not in EVENTS:
        return None
    step, seq, pid = (_whole(body.get(name)) for name in ("step", "seq", "pid"))
    stall, lag = (_number(body.get(name)) for name in ("stall_seconds", "lag_seconds"))
    return Event(rank, kind, step, seq, str(body.get("text", "")), pid, stall, lag)


def _whole(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if good else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None


class Mailbox:
    """The reading end of the FIFO."""

    def __init__(self, path: Path) -> None:
        """Make the FIFO if it is not there, and keep it open.

        Open for writing as well: otherwise it would end with each writer, and a rank that comes
        later would find no reader.
        """
        with suppress(FileNotFoundError):
            if not stat.S_ISFIFO(path.lstat().st_mode):
                path.unlink()
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self.ignored = 0  #: lines that were no heartbeat

    def fileno(self) -> int:
        """Return the descriptor, for select."""
        return self._fd

    def read(self) -> list[Message]:
        """Return what was said since the last call, at most `READ_MAX` bytes of it."""
        *lines, self._rest = (self._rest + self._take()).split(b"\n")
        self._rest = self._rest[: LINE_MAX + 1]  # more without an end is no rank of ours
        heard = [parse(line) for line in lines if line]
        messages = [message for message in heard if message is not None]
        self.ignored += len(heard) - len(messages)
        return messages

    def _take(self) -> bytes:
        taken: list[bytes] = []
        size = 0
        while size < READ_MAX:
            try:
                data = os.read(self._fd, 65_536)
            except BlockingIOError:
                break
            taken.append(data)
            size += len(data)
        return b"".join(taken)

    def empty(self) -> None:
        """Throw away what is unread: it was said by ranks that are gone."""
        for _ in range(16):  # a stranger who writes all the time cannot keep us here
            if not self._take():
                break
        self._rest = b""

    def close(self) -> None:
        """Close the FIFO; the file stays."""
        os.close(self._fd)


class Journal:
    """Every step of every rank, appended to `progress.jsonl` for people and for the controller."""

    def __init__(self, path: Path) -> None:
        """Append to `path`; one older file is kept beside it."""
        self._path = path
        self.lost = 0  #: lines that the disk refused

    def write(self, lines: list[dict[str, Any]]) -> None:
        """Append lines. A full disk costs the lines, never the agent."""
        if not lines:
            return
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        try:
            with self._path.open("ab") as file:
                file.write(data)
                size = file.tell()
            if size > JOURNAL_MAX:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        except OSError:
            self.lost += len(lines)
