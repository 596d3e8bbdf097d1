"""Whom an agent asks and tells, and how often.

Who asks is answered at once; what has changed is told to everybody concerned at once; and the rest
is pings, so that silence is noticed and a lost word is made good. Pure, standard library only,
Python 3.10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.runtime import doubts
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Generation, Member
from orchestrator.runtime.neighbours import Alarm, Peers
from orchestrator.runtime.turns import Send, Tell, Terms, Wish
from orchestrator.runtime.words import Phase, Status, Word


@dataclass(frozen=True)
class Scene:
    """What decides who must hear of this agent, and of whom it must hear."""

    status: Status  #: with `count` 0
    grant: Grant | None
    latest: Generation | None
    forming: bool  #: a round is under way
    short: bool  #: the round lacks members, and waits for a grant
    over: bool  #: this agent has nothing to ask any more

    @property
    def seats(self) -> tuple[Member, ...]:
        """Every node of the grant."""
        return () if self.grant is None else self.grant.seats

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of the last generation."""
        return () if self.latest is None else self.latest.members

    @property
    def leads(self) -> bool:
        """Whether this agent leads the last generation."""
        return self.members[:1] == (self.status.member,)


class Voice:
    """The words of one agent."""

    def __init__(self, terms: Terms, peers: Peers, alarm: Alarm) -> None:
        """Begin without having said anything."""
        self._terms, self._peers, self._alarm = terms, peers, alarm
        self._count = 0
        self._said: Status | None = None
        self._asked_by: list[tuple[Member, int]] = []
        self._asking: frozenset[Member] = frozenset()
        self._noted_lost: set[Member] = set()

    def hear(self, word: Word) -> None:
        """Take in a peer's word; remember to answer a question."""
        self._peers.hear(word)
        self._noted_lost.discard(word.status.member)
        if word.asks:
            self._asked_by.append((word.status.member, word.number))

    @property
    def lost(self) -> tuple[Member, ...]:
        """Those who are asked at present and do not answer."""
        return tuple(member for member in self._asking if self._peers.silent(member))

    def talk(self, scene: Scene) -> list[Wish]:
        """Return what is to be said now."""
        changed, self._said = scene.status != self._said, scene.status
        wishes: list[Wish] = [
            self._send(scene, member, number, asks=False) for member, number in self._asked_by
        ]
        self._asked_by.clear()
        urgent = dict.fromkeys(self._circle(scene)) if changed else {}
        asked = self._to_ask(scene)
        for member, pause in asked.items():
            peer = self._peers.of(member)
            if member not in self._asking:  # what was known of it may be old
                peer.waiting_since, peer.broken = None, False
            if self._alarm.due(peer.ask_at):
                number = self._peers.question(peer, again_in=pause)
                wishes.append(self._send(scene, member, number, asks=True))
                urgent.pop(member, None)
                self._alarm.due(peer.ask_at)
        self._asking = frozenset(asked)
        wishes += [self._send(scene, member, 0, asks=False) for member in urgent]
        return wishes + self._note_lost(asked)

    def _send(self, scene: Scene, member: Member, number: int, *, asks: bool) -> Send:
        self._count += 1
        known, grant = self._peers.of(member).status, scene.grant
        lacks = known is not None and grant is not None and known.grant < grant.number
        said = replace(scene.status, count=self._count)
        return Send(member, Word(asks, number, said, grant if lacks else None))

    def _circle(self, scene: Scene) -> Iterable[Member]:
        """Return everybody who should hear of a change at once."""
        me = scene.status.member
        circle: tuple[Member, ...] = scene.members
        if me in scene.members:
            if scene.leads or scene.status.phase is not Phase.RUNNING:
                circle = (*circle, *scene.seats)
        elif scene.forming:
            circle = (*circle, *scene.seats)
        return (member for member in dict.fromkeys(circle) if member != me)

    def _to_ask(self, scene: Scene) -> Mapping[Member, float]:
        """Return whom to ask, and how long until they are asked again."""
        me, terms = scene.status.member, self._terms
        inside = me in scene.members
        asked: dict[Member, float] = {}
        if scene.over:
            return asked
        if scene.status.phase is Phase.RUNNING and scene.latest is not None and inside:
            if scene.leads:
                asked = dict.fromkeys(scene.seats, terms.standby_every)
            members = doubts.watched(scene.latest, me, all_of_them=False)
            asked.update(dict.fromkeys(members, terms.ping_every))
        elif inside or scene.forming:
            often = scene.forming and not scene.short and (inside or scene.latest is None)
            pause = terms.ask_every if often else terms.ping_every
            asked = dict.fromkeys((*scene.members, *scene.seats), pause)
        asked.pop(me, None)
        return asked

    def _note_lost(self, asked: Iterable[Member]) -> list[Wish]:
        """Say once of each node that is asked that it does not answer."""
        wishes: list[Wish] = []
        for member in asked:
            if member not in self._noted_lost and self._peers.silent(member):
                self._noted_lost.add(member)
                text = f"{member.node} does not answer"
                wishes.append(Tell("peer-lost", text, {"node": member.node}))
        return wishes
