"""A small world for the machine of membership: a clock, a bad network, a register, fragile nodes.

Everything is decided by one seed. It checks, at every step, what must never happen.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.runtime import turns as t
from orchestrator.runtime import words
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import (
    Because,
    Cause,
    Commit,
    Fence,
    Generation,
    Lineage,
    Member,
    Record,
)
from orchestrator.runtime.membership import Membership
from orchestrator.runtime.words import Phase

LIVE = (Phase.RUNNING, Phase.FINISHED)
ENDING_TAKES = 0.4  #: seconds between EndRanks and RanksGone


@dataclass
class Node:
    """One node with its agent, as long as that lives."""

    name: str
    member: Member
    machine: Membership
    alive: bool = True
    disk: Grant | None = None
    running: Generation | None = None  #: whose ranks run here
    ticking_at: float = float("inf")
    ended: list[tuple[str, str]] = field(default_factory=list)  #: (mark, why)
    told: list[t.Tell] = field(default_factory=list)

    def runs(self, generation: Generation) -> bool:
        """Say whether its ranks are of this generation, recorded or not when they began."""
        return self.running is not None and self.running.mark == generation.mark


class World:
    """Nodes a, b, c, ... of attempt 1 of job j."""

    def __init__(
        self, names: str, *, seed: int = 0, register: bool = True, **terms: object
    ) -> None:
        self.now = 100.0
        self.dice = random.Random(seed)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.counter = 0
        self.has_register = register
        self.terms = terms
        self.records: list[Record] = []
        self.lineage = Lineage()
        self.unreachable: set[str] = set()  #: nodes that cannot reach the register
        self.lossy = 0.0
        self.doubled = 0.0
        self.delay = (0.001, 0.01)
        self.cut: set[frozenset[str]] = set()
        self.nodes: dict[str, Node] = {}
        self.grants: dict[int, Grant] = {}
        self.ports = 5000
        self.stores = 9000
        self.proposals: list[tuple[str, Generation]] = []
        self.hidden: set[str] = set()  #: nodes whose next record lands while its answer gets lost
        if register:
            self.write(Fence(1, "f1", 1, 1, 0.0))
        for name in names:
            self.boot(name)

    # ---- time ------------------------------------------------------------------------------------

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.counter += 1
        heapq.heappush(self.events, (self.now + seconds, self.counter, act))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.events and self.events[0][0] <= until:
            at, _, act = heapq.heappop(self.events)
            self.now = max(self.now, at)
            act()
        self.now = until

    def run_until(self, what: Callable[[], bool], limit: float = 60.0) -> float:
        """Run until something is so; return how long it took. Fails after `limit` seconds."""
        began = self.now
        while not what():
            assert self.now - began < limit, f"not within {limit} s: {self.describe()}"
            self.run(0.02)
        return self.now - began

    # ---- nodes -----------------------------------------------------------------------------------

    def boot(self, name: str) -> Node:
        """Start an agent on a node, with what an earlier one left on the disk."""
        self.ports += 1
        old = self.nodes.get(name)
        member = Member(name, f"h-{name}", self.ports)
        terms = t.Terms("j", 1, member, born=self.now, register=self.has_register, **self.terms)  # type: ignore[arg-type]
        node = Node(name, member, Membership(terms, self.now))
        self.nodes[name] = node
        if old is not None and old.disk is not None:
            node.disk = old.disk
            self.feed(node, t.Granted(old.disk))
        else:
            self.feed(node, t.Tick())
        return node

    def kill(self, name: str) -> None:
        """End agent and ranks of a node; its disk stays."""
        self.nodes[name].alive = False
        self.nodes[name].running = None

    def feed(self, node: Node, given: t.Given) -> None:
        if not node.alive:
            return
        for wish in node.machine.take(given, self.now):
            self.carry_out(node, wish)
        wake = node.machine.wake_at
        if wake < node.ticking_at or node.ticking_at <= self.now:
            node.ticking_at = max(wake, self.now)
            if wake < float("inf"):
                self.later(max(0.0, wake - self.now) + 1e-6, lambda: self.tick(node))

    def tick(self, node: Node) -> None:
        node.ticking_at = float("inf")
        self.feed(node, t.Tick())

    def answer(self, node: Node, given: t.Given, seconds: float) -> None:
        self.later(seconds, lambda: self.feed(node, given))

    def carry_out(self, node: Node, wish: t.Wish) -> None:
        match wish:
            case t.Send(to=to, word=word):
                self.send(node, to, word)
            case t.KeepGrant(grant=grant):
                node.disk = grant
                self.answer(node, t.Granted(grant), 0.0)
            case t.ReadRegister():
                self.read(node)
            case t.BindStore():
                self.stores += 1
                self.answer(node, t.Bound(self.stores, held=True), self.dice.uniform(0.0, 0.1))
            case t.Append(draft=draft, lineage=lineage):
                self.append(node, draft, lineage)
            case t.StartRanks(generation=generation):
                self.start_ranks(node, generation)
            case t.EndRanks(why=why):
                assert node.running is not None, "ranks ended twice"
                node.ended.append((node.running.mark, why))
                self.later(ENDING_TAKES, lambda: self.ranks_gone(node))
            case t.Tell():
                node.told.append(wish)

    # ---- ranks -----------------------------------------------------------------------------------

    def start_ranks(self, node: Node, generation: Generation) -> None:
        assert node.running is None, f"{node.name} runs two generations"
        assert node.member in generation.members
        grant = node.machine.grant
        assert grant is not None
        assert grant.number <= generation.grant, "joined under a lower grant"
        assert node.member in self.grants[generation.grant].seats, "a node that was not granted"
        node.running = generation

    def ranks_gone(self, node: Node) -> None:
        node.running = None
        self.feed(node, t.RanksGone())

    def fail_rank(self, name: str, fingerprint: str = "signal 9", *, delay: float = 0.0) -> None:
        node = self.nodes[name]
        if node.running is None:
            return
        because = Because(Cause.RANK_EXIT, 7, fingerprint, name, 0)
        self.answer(node, t.RanksTroubled(because, self.now + delay), delay)

    def finish(self, name: str) -> None:
        if self.nodes[name].running is not None:
            self.feed(self.nodes[name], t.RanksFinished())

    # ---- register --------------------------------------------------------------------------------

    def write(self, record: Record) -> None:
        self.records.append(record)
        self.lineage = self.lineage.then(record)

    def read(self, node: Node) -> None:
        if node.name in self.unreachable:
            self.answer(node, t.Unread("unreachable"), self.dice.uniform(0.0, 0.5))
            return
        lineage, began = self.lineage, self.now
        self.answer(node, t.Read(lineage, began), self.dice.uniform(0.0, 0.05))

    def append(self, node: Node, draft: Generation, lineage: Lineage) -> None:
        self.check_proposer(node, draft, lineage)
        takes = self.dice.uniform(0.0, 0.1)
        if node.name in self.unreachable:
            self.answer(node, t.Unsure("unreachable"), takes)
            return
        if lineage.next_seq != self.lineage.next_seq:
            self.answer(node, t.Overtaken(self.lineage), takes)
            return
        record = replace(draft, seq=lineage.next_seq, nonce=f"n{len(self.records)}", at=self.now)
        self.write(record)
        assert self.lineage.latest == record, "a generation that does not count"
        if node.name in self.hidden:
            self.hidden.discard(node.name)
            self.answer(node, t.Unsure("the answer got lost"), takes)
        else:
            self.answer(node, t.Appended(self.lineage), takes)

    def check_proposer(self, node: Node, draft: Generation, lineage: Lineage) -> None:
        grant, latest = self.grants[draft.grant], lineage.latest
        assert node.member == draft.members[0]
        assert set(draft.members) <= set(grant.seats)
        assert grant.nodes_min <= len(draft.members) <= grant.nodes_max
        assert (draft.because.cause is Cause.START) == (latest is None)
        if latest is None:
            assert node.member in grant.nodes, "a standby proposed"
        elif node.member not in latest.members:
            assert grant.number > latest.grant
            assert node.member in grant.nodes, "a standby proposed"
        self.proposals.append((node.name, draft))

    def commit(self, name: str) -> None:
        """Let a running rank of a node commit, as the vault would."""
        running = self.nodes[name].running
        lineage = self.lineage
        if running is None or name in self.unreachable or lineage.ruler != running.seq:
            return
        head = lineage.head
        parent = None if head is None else head.seq
        step = 1 if head is None else head.step + 1
        seq = lineage.next_seq
        self.write(Commit(seq, f"c{seq}", running.seq, step, parent, "m", "d", self.now, name))

    # ---- network ---------------------------------------------------------------------------------

    def reachable(self, one: str, other: str) -> bool:
        return frozenset((one, other)) not in self.cut

    def send(self, node: Node, to: Member, word: words.Word) -> None:
        target = self.nodes.get(to.node)
        if target is None or not self.reachable(node.name, to.node):
            self.answer(node, t.Broken(to), 1.0)
            return
        if not target.alive or target.member != to:
            self.answer(node, t.Broken(to), 0.005)
            return
        if self.dice.random() < self.lossy:
            return
        if self.dice.random() < 0.02:  # the wire form has tests of its own
            word = words.decode(json.loads(json.dumps(words.encode(word))))
        for _ in range(2 if self.dice.random() < self.doubled else 1):
            self.answer(target, t.Heard(word), self.dice.uniform(*self.delay))

    def partition(self, side: str) -> None:
        other = [name for name in self.nodes if name not in side]
        self.cut = {frozenset((one, two)) for one in side for two in other}

    # ---- the controller --------------------------------------------------------------------------

    def grant(self, nodes: str, standbys: str = "", to: str | None = None, **more: Any) -> Grant:
        """Issue the next grant and give it to some nodes (all that it names, if not said)."""
        number = len(self.grants) + 1
        grant = Grant(
            job="j",
            attempt=1,
            number=number,
            token=1,
            nodes=tuple(self.nodes[name].member for name in nodes),
            standbys=tuple(self.nodes[name].member for name in standbys),
            nodes_min=1,
            nodes_max=len(nodes),
            generations_max=10_000,
        )
        grant = replace(grant, **more)
        self.grants[number] = grant
        for name in nodes + standbys if to is None else to:
            self.give(name, grant)
        return grant

    def give(self, name: str, grant: Grant) -> str | None:
        node = self.nodes[name]
        objection = node.machine.objection(grant)
        if node.alive and objection is None:
            node.disk = grant
            self.feed(node, t.Granted(grant))
        return objection

    # ---- what tests ask --------------------------------------------------------------------------

    def runs(self, names: str, number: int | None = None) -> bool:
        """Say whether exactly these nodes run the last counted generation."""
        latest = self.lineage.latest if self.has_register else self.nodes[names[0]].machine.latest
        if latest is None or (number is not None and latest.number != number):
            return False
        running = {n.name for n in self.nodes.values() if n.alive and n.runs(latest)}
        return running == set(names) and len(latest.members) == len(names)

    def settled(self) -> bool:
        """Say whether all members of the last generation run it."""
        latest = self.lineage.latest
        if latest is None:
            return False
        mine = [self.nodes[member.node] for member in latest.members]
        return all(n.alive and n.runs(latest) and n.machine.phase in LIVE for n in mine)

    def describe(self) -> str:
        """Tell where everybody stands."""
        lines = [f"latest: {self.lineage.latest}"]
        for node in self.nodes.values():
            machine = node.machine
            running = None if node.running is None else node.running.number
            lines.append(
                f"{node.name}: alive={node.alive} {machine.stage.value} {machine.phase.value} "
                f"grant={machine.grant and machine.grant.number} runs={running} "
                f"obstacle={machine.obstacle!r} failure={machine.failure}"
            )
        return "\n".join(lines)
