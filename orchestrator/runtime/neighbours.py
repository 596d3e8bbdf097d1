"""What one agent knows of the others: the newest status of each, and how long it was silent.

Silence is kept apart from death: a silent peer may still run its ranks; the register protects from
it, and only a proof (`gone`) says otherwise. Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.runtime.lineage import Generation, Member
from orchestrator.runtime.turns import Terms
from orchestrator.runtime.words import Phase, Status, Word


class Alarm:
    """The moment it is, and the next one at which something falls due."""

    def __init__(self, now: float) -> None:
        """Begin at `now`, seconds on any clock that never goes back."""
        self.now = now
        self.wake_at = math.inf

    def wind(self, now: float) -> None:
        """Move on to `now` and forget what was due later."""
        self.now, self.wake_at = max(self.now, now), math.inf

    def due(self, moment: float) -> bool:
        """Say whether `moment` has come; if not, remember to wake then."""
        if self.now >= moment:
            return True
        self.wake_at = min(self.wake_at, moment)
        return False


@dataclass
class Peer:
    """One other agent of the attempt, at one address."""

    member: Member
    status: Status | None = None
    heard_at: float = -math.inf
    waiting_since: float | None = None  #: when it was asked what it has not answered yet
    ask_at: float = -math.inf  #: when to ask it next
    answered: int = 0  #: number of the newest question it answered
    broken: bool = False  #: its agent cannot be connected to
    gone: bool = False  #: proven: nothing of the attempt runs there
    joined: tuple[str, float] | None = None  #: generation it was seen in, and its `born` then
    stopping_at: float | None = None  #: when it first said that it was told to stop

    def has(self, mark: str, *phases: Phase) -> bool:
        """Say whether its ranks of this generation were in one of these phases when last heard."""
        status = self.status
        return status is not None and status.mark == mark and status.phase in phases

    def take_part(self, generation: Generation) -> bool:
        """Say whether it ever joined this generation, as far as was heard."""
        return self.joined is not None and self.joined[0] == generation.mark

    def was_replaced(self, generation: Generation) -> bool:
        """Say whether another agent process answers than the one that joined this generation."""
        status = self.status
        return (
            status is not None
            and self.take_part(generation)
            and self.joined is not None
            and self.joined[1] != status.born
        )


class Peers:
    """All of them, by address."""

    def __init__(self, terms: Terms, alarm: Alarm) -> None:
        """Know nobody yet."""
        self._terms, self._alarm = terms, alarm
        self._peers: dict[Member, Peer] = {}
        self._asked = 0

    def __iter__(self) -> Iterator[Peer]:
        """Go through everybody that was heard of."""
        return iter(tuple(self._peers.values()))

    def of(self, member: Member) -> Peer:
        """Return what is known of one."""
        known = self._peers.get(member)
        if known is None:
            known = self._peers[member] = Peer(member)
        return known

    @property
    def next_number(self) -> int:
        """The number that the next question will have."""
        return self._asked + 1

    def question(self, peer: Peer, *, again_in: float) -> int:
        """Remember that `peer` is asked now; return the number of the question."""
        self._asked += 1
        peer.ask_at = self._alarm.now + again_in
        if peer.waiting_since is None:
            peer.waiting_since = self._alarm.now
        return self._asked

    def hear(self, word: Word) -> None:
        """Take a word in, unless a newer one of the same sender was heard before."""
        said, peer = word.status, self.of(word.status.member)
        known = peer.status
        if known is not None and (said.born, said.count) <= (known.born, known.count):
            return
        if not word.asks:
            peer.answered = max(peer.answered, word.number)
            peer.waiting_since = None
        peer.status, peer.heard_at = said, self._alarm.now
        peer.broken = peer.gone = False
        if said.mark is not None and said.phase in (Phase.RUNNING, Phase.FINISHED):
            peer.joined = (said.mark, said.born)
        if not said.stopping:
            peer.stopping_at = None
        elif peer.stopping_at is None:
            peer.stopping_at = self._alarm.now

    def silent(self, member: Member) -> bool:
        """Say whether it cannot be reached, or has not answered for too long."""
        peer = self.of(member)
        if peer.broken or peer.gone:
            return True
        waiting = peer.waiting_since
        return waiting is not None and self._alarm.due(waiting + self._terms.mute_after)

    def answers_since(self, first: int, members: Iterable[Member]) -> dict[Member, Status]:
        """Return who answered a question numbered `first` or later and is heard since."""
        found = {}
        for member in members:
            peer = self.of(member)
            if peer.answered >= first and peer.status is not None and not self.silent(member):
                fresh = peer.waiting_since is None or not self._alarm.due(
                    peer.waiting_since + self._terms.answer_limit
                )
                if fresh:
                    found[member] = peer.status
        return found

    def is_due(self, moment: float) -> bool:
        """Say whether a moment has come."""
        return self._alarm.due(moment)

    def is_held(self, member: Member) -> bool:
        """Say whether it was told to stop so lately that everybody may be about to be."""
        since = self.of(member).stopping_at
        return since is not None and not self._alarm.due(since + self._terms.stop_hold)
