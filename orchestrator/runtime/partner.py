"""Copies of this node's snapshots in another node's memory: the agent's side.

`candidates` says who keeps them. The state of a gang is replicated, and every member has snapshots
of its own: what would take them all is the loss of all members at once, or of the only one. So the
first member has its snapshots copied to a node that is no member: a standby of the grant, which
then can go on from there. Without a standby nobody outside the gang could use a copy.

The work is done by the courier (`courier.py`), a process of its own, which is started when there is
something to do. Standard library only, Python 3.10.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime.attendant import Attendant
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Member
from orchestrator.runtime.memory import OWN, PARTNER, SLOTS
from orchestrator.runtime.memorykeeper import MemoryKeeper
from orchestrator.runtime.place import Place
from orchestrator.runtime.spec import AgentSpec

DEATHS_MAX = 3  #: couriers that may die before there are no more copies
NOTES_MAX = 100

Told = tuple[str, str, Mapping[str, Any]]  #: kind, text and data of a note


def candidates(me: Member, members: Sequence[Member], grant: Grant | None) -> tuple[Member, ...]:
    """Return who may keep copies of this node's snapshots, best first; none if it need not."""
    if grant is None or not members or members[0] != me:
        return ()
    return tuple(seat for seat in grant.standbys if seat not in members)


class Partner:
    """One agent's courier, and what was told it."""

    def __init__(
        self,
        spec: AgentSpec,
        place: Place,
        keeper: MemoryKeeper,
        selector: selectors.BaseSelector,
    ) -> None:
        """Nothing is started yet."""
        self._spec, self._keeper = spec, keeper
        self._courier = Attendant(spec, place, selector, "courier", self._hear)
        self._door: int | None = None
        self._told: tuple[int, tuple[Member, ...]] | None = None  #: number of the segment, to whom
        self._lent: int | None = None  #: number of the segment that it writes copies to
        self._deaths = 0
        self._last: tuple[object, ...] = ()
        self._notes: deque[Told] = deque(maxlen=NOTES_MAX)
        self.copied: tuple[int, int] | None = None  #: (generation, step) that the partner has

    @property
    def pid(self) -> int | None:
        """The courier's pid, if there is one."""
        return self._courier.pid

    @property
    def _able(self) -> bool:
        wanted = self._spec.partner_rate > 0 and self._spec.launch == "ranks"
        return wanted and self._deaths < DEATHS_MAX

    def tend(self, to: tuple[Member, ...]) -> list[Told]:
        """See that copies go to one of `to`; return what is worth a note. Never blocks."""
        self._courier.listen()
        own = self._keeper.held(OWN)
        wanted = None if own is None or not to or not self._able else (own.number, to)
        lent = self._keeper.held(PARTNER)
        if self._lent is not None and (lent is None or lent.number != self._lent):
            self._lent = None
            self._courier.say({"do": "forget"})
        if wanted != self._told and (wanted is None or self._start()):
            self._told = wanted
            if wanted is None or own is None:
                self._keeper.aside = 0
                self._courier.say({"do": "rest"})
            else:
                seats = [[one.node, one.host, one.port] for one in to]
                order = {"do": "send", "to": seats, "rate": self._spec.partner_rate}
                order["aside_max"] = self._set_aside(own.bytes // SLOTS)
                self._courier.say(order, (own.descriptor,))
        notes = list(self._notes)
        self._notes.clear()
        return notes

    def _set_aside(self, size: int) -> int:
        """Reserve room to copy one snapshot aside, or as much of it as the bound leaves."""
        self._keeper.aside = 0
        self._keeper.aside = min(size, self._keeper.left)
        return self._keeper.aside

    def door(self) -> int:
        """Return the port where this node takes copies in.

        Raises `TransientError` while the courier starts, `PermanentError` if there is none.
        """
        if not self._able:
            raise PermanentError("no copies are kept here")
        if not self._start():
            raise TransientError("the courier cannot be started")
        if self._door is None:
            raise TransientError("the courier is starting")
        return self._door

    # ---- the process -----------------------------------------------------------------------------

    def _start(self) -> bool:
        """Start the courier, unless it runs; say whether there is one."""
        if self._courier.pid is not None:
            return True
        self._door = None
        try:
            spec = self._spec
            self._courier.start({"host": spec.host, "key": spec.key, "run": spec.run})
        except OSError as error:
            self._deaths = DEATHS_MAX
            self._notes.append(("partner-copy-failed", f"no courier: {error}", {}))
            return False
        return True

    def _hear(self, body: Mapping[str, Any] | None) -> None:
        if body is None:
            self._deaths += 1
            self._note("partner-copy-failed", "", "the courier died", {})
            self._forget()
            return
        said = body.get("say")
        if said == "door":
            self._door = int(body["port"])
        elif said == "room":
            self._give_room(body.get("bytes"))
        elif said in ("partner-copy", "partner-copy-failed"):
            node, step = str(body.get("node")), body.get("step")
            if said == "partner-copy":
                self.copied = (int(body["generation"]), int(body["step"]))
                self._deaths = 0
                text = f"step {step} is in the memory of {node}: {body.get('bytes')} bytes"
                self._note(said, node, text, {"step": step, "seconds": body.get("seconds")})
            else:
                text = f"no copy of step {step} in the memory of {node}: {body.get('why')}"
                self._note(said, f"{node} {body.get('why')}", text, {"step": step})

    def _give_room(self, size: object) -> None:
        refusal = self._keeper.reserve(PARTNER, size)
        held = self._keeper.held(PARTNER)
        if refusal is None and held is not None:
            self._lent = held.number
            self._courier.say({"do": "room"}, (held.descriptor,))
        else:
            self._courier.say({"do": "room", "refused": refusal})

    def _note(self, kind: str, about: str, text: str, data: Mapping[str, Any]) -> None:
        """Note what is new: the first copy to a partner, another reason for a failure."""
        if (kind, about) != self._last:
            self._last = (kind, about)
            self._notes.append((kind, text, data))

    def stop(self) -> None:
        """End the courier."""
        self._forget()
        self._courier.stop()

    def _forget(self) -> None:
        self._door = self._told = self._lent = None

    close = stop
