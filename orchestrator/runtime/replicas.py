"""Copies of this run's checkpoints in its replicas: the agent's side.

The first member's agent has them made while its generation runs, by the replicator
(`replicator.py`), a process of its own. Every member could: only what the register says counts is
copied, so two of them at once, in a network that fell apart, would do the same work twice.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from orchestrator.runtime.attendant import Attendant
from orchestrator.runtime.place import Place
from orchestrator.runtime.spec import AgentSpec

AGAIN_AFTER = 10.0  #: seconds until a replicator that died is started again
TOLD_EVERY = 600.0  #: seconds until a copy that came about is told again
NOTES_MAX = 100

DONE, BEHIND = "replicated", "replica-behind"  #: kinds of notes

Told = tuple[str, str, Mapping[str, Any]]  #: kind, text and data of a note


class Replicas:
    """One agent's replicator."""

    def __init__(
        self,
        spec: AgentSpec,
        place: Place,
        selector: selectors.BaseSelector,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is started yet."""
        self._spec, self._place, self._clock = spec, place, clock
        self._process = Attendant(spec, place, selector, "replicator", self._hear, spec.env)
        self._again_at = 0.0
        self._last: dict[str, tuple[str, float]] = {}  #: by replica: what was told, and when
        self._notes: deque[Told] = deque(maxlen=NOTES_MAX)

    @property
    def pid(self) -> int | None:
        """The replicator's pid, if there is one."""
        return self._process.pid

    def tend(self, *, leads: bool) -> list[Told]:
        """See that copies are made while this node leads; return what is worth a note."""
        self._process.listen()
        if not leads or not self._wanted:
            self._process.stop()
        elif self._process.pid is None and self._clock() >= self._again_at:
            self._start()
        notes = list(self._notes)
        self._notes.clear()
        return notes

    @property
    def _wanted(self) -> bool:
        spec = self._spec
        return bool(spec.replicate and spec.replicas and spec.checkpoints and spec.register)

    def _start(self) -> None:
        self._again_at = self._clock() + AGAIN_AFTER
        spec = self._spec
        assert spec.replicate is not None
        wishes = asdict(spec.replicate)
        order = {
            "checkpoints": spec.checkpoints,
            "register": spec.register,
            "replicas": list(spec.replicas),
            "spool": str(self._place.folder),
        }
        try:
            self._process.start({**order, "wishes": wishes})
        except OSError as error:
            self._tell("", BEHIND, f"no replicator: {error}", {})

    def _hear(self, body: Mapping[str, Any] | None) -> None:
        if body is None:
            self._tell("", BEHIND, "the replicator died", {})
            return
        self._last.pop("", None)  # it lives
        replica, kind = str(body.get("replica")), body.get("say")
        if kind == DONE:
            step, seconds = body.get("step"), body.get("seconds")
            text = f"step {step} is in {replica}: {body.get('bytes')} bytes"
            facts = {"replica": replica, "step": step, "seq": body.get("seq"), "seconds": seconds}
            self._tell(replica, kind, text, {**facts, "bytes": body.get("bytes")})
        elif kind == BEHIND:
            self._tell(replica, kind, f"{replica}: {body.get('why')}", {"replica": replica})

    def _tell(self, replica: str, kind: str, text: str, data: Mapping[str, Any]) -> None:
        """Note what is new; what goes on as before only now and then.

        Whoever reads the notes takes the last one for all replicas: "replicated" is not said while
        another one is behind.
        """
        was, at = self._last.get(replica, ("", 0.0))
        if kind == was and self._clock() < at + TOLD_EVERY:
            return
        self._last[replica] = (kind, self._clock())
        if kind == BEHIND or all(said != BEHIND for said, _ in self._last.values()):
            self._notes.append((kind, text, data))

    def close(self) -> None:
        """End the replicator."""
        self._process.stop()
