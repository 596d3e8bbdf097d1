"""What a rank tells its node's agent: one JSON line per step or event, through a FIFO.

Losing a heartbeat is never the script's problem: with no reader, or a full pipe, the line is
dropped. Standard library only, Python 3.10.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LINE_BYTES_MAX = 512  #: below PIPE_BUF, so that a write is whole or not at all


class Heart:
    """Writes the heartbeats of one rank. Safe to use from several threads."""

    def __init__(
        self, path: str | None, rank: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`path` is the agent's FIFO; None sends nothing."""
        self._path = path
        self.rank = rank
        self._clock = clock
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._step: int | None = None
        self.role = ""  #: ranks of different roles are not compared, at most 40 characters
        self.phase = "init"  #: init, compile, step, checkpoint or evaluate

    def beat(
        self,
        step: int | None = None,
        loss: float | None = None,
        tokens_per_second: float | None = None,
        data_wait: float | None = None,
        own: float | None = None,
    ) -> None:
        """Say that `step` is completed, or with no step only which phase this rank is in.

        `own` are the seconds of the step in which this rank waited neither for its peers nor data.
        """
        if step is not None:
            self._step = step
            self.phase = "step"
        body = {
            "phase": self.phase,
            "step": self._step,
            "loss": _finite(loss),
            "tokens_per_second": _finite(tokens_per_second),
            "data_wait": _finite(data_wait),
        }
        if own is not None:
            body |= {"own": _finite(round(own, 6))}
        if self.role:
            body |= {"role": self.role}
        self._send(body)

    def stand(self, step: int) -> None:
        """Say at which step this rank goes on: a failure before the next one is one after it."""
        self._step = step
        self.beat()

    def event(
        self,
        event: str,
        *,
        step: int | None = None,
        seq: int | None = None,
        text: str = "",
        took: Mapping[str, float] | None = None,
    ) -> None:
        """Say that something happened once; a long text is cut. `took` are seconds by name."""
        seconds = {name: round(value, 4) for name, value in (took or {}).items()}
        self._send({"event": event, "step": step, "seq": seq, "text": text, **seconds})

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Announce a phase, and the one before again at its end."""
        before, self.phase = self.phase, phase
        self.beat()
        try:
            yield
        finally:
            self.phase = before
            self.beat()

    def _send(self, body: dict[str, Any]) -> None:
        if self._path is None:
            return
        facts = {"rank": self.rank, "pid": os.getpid(), "at": self._clock(), **body}
        line = json.dumps(facts).encode() + b"\n"
        while len(line) >= LINE_BYTES_MAX and facts.get("text"):
            facts["text"] = facts["text"][: len(facts["text"]) * 3 // 4]
            line = json.dumps(facts).encode() + b"\n"
        with self._lock:
            self._write(line)

    def _write(self, line: bytes) -> None:
        for _ in range(2):  # a second time after the reader was another one (a new agent)
            try:
                if self._descriptor is None:
                    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC
                    self._descriptor = os.open(str(self._path), flags)
                os.write(self._descriptor, line)
            except BlockingIOError:  # the reader is slow: this line is lost
                return
            except OSError:
                self._forget()
            else:
                return

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _finite(value: float | None) -> float | None:
    """Return a number that JSON has; a loss of NaN is told as none."""
    return float(value) if value is not None and math.isfinite(value) else None
