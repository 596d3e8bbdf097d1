"""The daemon in the simulated world: the very `Loop`, on the in-memory ledger, with a fake clock.

Started, killed (also in the middle of a write), started again. What it submitted to its workers
happens a little later, and lands in the world even if the controller is dead by then.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import Effect, Intent, LedgerOnly
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.nodes import ClusterName, ProviderName
from orchestrator.core.observations import Observation
from orchestrator.core.policies import Policy
from orchestrator.daemon.loop import Loop, Message, Saw
from orchestrator.daemon.rhythm import Bell
from orchestrator.ledger.api import Assess
from orchestrator.ledger.api import Event as Told
from orchestrator.ledger.memory import MemoryLedger
from orchestrator.simulation.agenda import Agenda, Event, moment, second
from orchestrator.simulation.eyes import SimEyes
from orchestrator.simulation.hands import SimHands
from orchestrator.simulation.truth import Doing
from orchestrator.simulation.world import World

LEASE = timedelta(days=3650)  #: leases are the daemon's business; a killed holder is surely dead
#: While a job stands like this, any cluster may be decided about.
STANDING = frozenset({Doing.STARTING, Doing.UNNOTICED, Doing.RESTARTING, Doing.SHORT})


class KilledError(BaseException):
    """The controller died here. Not an `Exception`: nothing in it may catch its own death."""


@dataclass(eq=False)
class SimLedger(MemoryLedger):
    """The in-memory ledger, at whose writes a controller may die."""

    writes: int = 0
    die_at: int = 0  #: number of the write that is the last one; 0: none
    die_before: bool = False  #: before it is written rather than after
    applied: list[Callable[[LedgerOnly, datetime], None]] = field(default_factory=list)
    intended: list[Callable[[Effect, datetime], None]] = field(default_factory=list)

    def _write(self, write: Callable[[], Any]) -> Any:
        self.writes += 1
        last = self.writes == self.die_at
        if last and self.die_before:
            raise KilledError
        done = write()
        if last:
            raise KilledError
        return done

    def record(
        self, token: int, observations: Sequence[Observation], now: datetime, assess: Assess
    ) -> Beliefs:
        """Record, and perhaps die."""
        beliefs: Beliefs = self._write(
            lambda: MemoryLedger.record(self, token, observations, now, assess)
        )
        return beliefs

    def apply(self, token: int, decision: LedgerOnly, now: datetime) -> None:
        """Apply, and perhaps die."""

        def write() -> None:
            MemoryLedger.apply(self, token, decision, now)
            for hear in self.applied:
                hear(decision, now)

        self._write(write)

    def intend(
        self, token: int, decision: Effect, now: datetime, deadline: datetime
    ) -> Intent | None:
        """Intend, and perhaps die."""

        def write() -> Intent | None:
            intent = MemoryLedger.intend(self, token, decision, now, deadline)
            if intent is not None:
                for hear in self.intended:
                    hear(decision, now)
            return intent

        intent: Intent | None = self._write(write)
        return intent

    def settle(
        self, token: int, key: str, now: datetime, *, ok: bool, text: str, data: Mapping[str, Any]
    ) -> None:
        """Settle, and perhaps die."""
        self._write(lambda: MemoryLedger.settle(self, token, key, now, ok=ok, text=text, data=data))

    def event(self, token: int, event: Told, now: datetime) -> None:
        """Tell, and perhaps die."""
        self._write(lambda: MemoryLedger.event(self, token, event, now))


@dataclass(eq=False)
class SimWorkers:
    """Runs work a little later; at once while the controller takes its first look."""

    agenda: Agenda
    takes: Callable[[str], float]
    at_once: bool = False
    under_way: set[str] = field(default_factory=set)
    closed: bool = False

    @property
    def idle(self) -> bool:
        """Say whether nothing is under way that a first look waits for."""
        return True

    def submit(self, pool: str, key: str, work: Callable[[], None]) -> bool:
        """Run `work` later; False if the same key is under way."""
        if self.closed or key in self.under_way:
            return False
        self.under_way.add(key)

        def run() -> None:
            self.under_way.discard(key)
            work()

        self.agenda.after(self.takes(key), run)
        return True

    def wait(self, limit: float) -> bool:
        """Say whether nothing is under way; no time passes by asking."""
        return not self.under_way

    def close(self) -> None:
        """Take no more work."""
        self.closed = True


@dataclass(eq=False)
class SimInbox:
    """Where messages wait for the next tick; each one calls for it."""

    call: Callable[[], None]
    messages: deque[Message] = field(default_factory=deque)

    def put(self, message: Message) -> None:
        """Leave a message."""
        self.messages.append(message)
        self.call()

    def get(self, *, timeout: float) -> Message:
        """Take a message; raises `queue.Empty` at once if there is none: no time passes here."""
        return self.get_nowait()

    def get_nowait(self) -> Message:
        """Take a message; raises `queue.Empty` if there is none."""
        if not self.messages:
            raise queue.Empty
        return self.messages.popleft()

    def empty(self) -> bool:
        """Say whether no message waits."""
        return not self.messages


@dataclass(eq=False)
class SimClock:
    """The controller's clock: the world's, and what it is wrong by."""

    agenda: Agenda
    skew: float = 0.0

    def now(self) -> datetime:
        """Return the moment that the controller believes in."""
        return moment(self.agenda.now + self.skew)

    def elapsed(self) -> float:
        """Return seconds that never jump."""
        return self.agenda.now


@dataclass(eq=False)
class Controller:
    """The daemon of one world."""

    world: World
    policy: Policy
    ledger: SimLedger = field(default_factory=SimLedger)
    lives: int = 0
    ticks: int = 0
    delayed: Callable[[], float] | None = None  #: how late the next reports come, if they do
    doubled: Callable[[], bool] | None = None
    on_restart: list[Callable[[], None]] = field(default_factory=list)
    _loop: Loop | None = None
    _token: int = 0
    _rings: dict[Bell, Event] = field(default_factory=dict)
    _wake: Event | None = None
    _fleet: Fleet | None = None
    _busy: set[ClusterName] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Know the clusters."""
        self.clusters = tuple(
            Cluster(ClusterName(c.name), ProviderName(c.provider), frozenset(c.can))
            for c in self.world.plan.clusters
        )
        self.clock = SimClock(self.world.agenda)
        self.eyes: SimEyes | None = None
        self.inbox: SimInbox | None = None

    # --- life and death ---------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether a controller runs."""
        return self._loop is not None

    def start(self) -> None:
        """Start a controller; it takes the lease and looks at everything."""
        self.lives += 1
        holder = self.ledger.holder()
        if holder is not None:
            self.ledger.release(holder.token)
        token = self.ledger.acquire(f"controller {self.lives}", LEASE, self.clock.now())
        if token is None:
            raise AssertionError("the lease of a dead holder was not given back")
        self._token = token
        workers = SimWorkers(self.world.agenda, self._takes)
        inbox = SimInbox(self.call)
        eyes = SimEyes(
            self.world,
            self.policy,
            self._ring,
            lambda: self.fleet,
            workers,
            lambda seen: inbox.put(Saw(tuple(seen))) if seen else None,
            lambda: self.clock.skew,
        )
        if self.eyes is not None:
            self.world.watchers.remove(self.eyes)
            eyes.listed = self.eyes.listed
        self.world.watchers.append(eyes)
        hands = SimHands(self.world, eyes, lambda: self.clock.skew)
        self.eyes, self.inbox = eyes, inbox
        self._loop = Loop(
            ledger=self.ledger,
            eyes=eyes,
            hands=hands,
            policy=self.policy,
            clusters=self.clusters,
            clock=self.clock,
            inbox=inbox,
            tell=lambda token, now: None,
        )
        self._live(lambda loop: loop.first_look(token))
        self.call()

    def kill(self) -> None:
        """Kill it; what its workers do goes on."""
        self._loop = None
        for ring in self._rings.values():
            ring.cancel()
        self._rings.clear()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        for act in self.on_restart:
            act()

    # --- ticks ------------------------------------------------------------------------------------

    @property
    def fleet(self) -> Fleet:
        """The fleet as the ledger has it now."""
        return self.ledger.snapshot(self.clock.now(), self.clusters)

    def _ring(self, bell: Bell, at: float) -> None:
        if self.alive and bell not in self._rings:
            self._rings[bell] = self.world.agenda.at(at, lambda: self._rung(bell))

    def _rung(self, bell: Bell) -> None:
        self._rings.pop(bell, None)
        if self.eyes is None:
            return
        seen = self.eyes.changed(bell, self.fleet)
        self._bring(seen)

    def _bring(self, seen: Sequence[Observation]) -> None:
        """Bring observations to the controller: at once, or late, doubled and out of order."""
        inbox = self.inbox
        if inbox is None or not seen:
            return
        if self.delayed is None:
            inbox.put(Saw(tuple(seen)))
            return
        for one in seen:
            for _ in range(2 if self.doubled is not None and self.doubled() else 1):
                late = Saw((one,))
                self.world.agenda.after(self.delayed(), lambda late=late: inbox.put(late))  # type: ignore[misc]

    def _takes(self, key: str) -> float:
        times = self.world.plan.times
        if key.startswith("act TestPairs"):
            return times.test_pairs
        if key.startswith("act Examine"):
            return times.examine
        return times.start_agent if key.startswith("act StartAgent") else times.act

    def call(self) -> None:
        """Call for a tick now."""
        if self.alive:
            self._wake_at(self.world.now)

    def prune(self, keep: timedelta) -> None:
        """Forget older observations, as the daemon does once an hour."""
        self.ledger.prune(self._token, self.clock.now() - keep)

    def _wake_at(self, at: float) -> None:
        if self._wake is not None and not self._wake.cancelled and self._wake.at <= at:
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self.world.agenda.at(at, self._tick)

    def tick(self) -> None:
        """Take a look now, at whatever lies in the inbox."""
        self._tick()

    def _tick(self) -> None:
        self._wake = None
        loop, inbox, eyes = self._loop, self.inbox, self.eyes
        if loop is None or inbox is None or eyes is None:
            return
        messages: list[Message] = list(inbox.messages)
        inbox.messages.clear()
        fresh = eyes.refresh(self._near(messages), self.fleet)
        if fresh:
            messages.append(Saw(tuple(fresh)))
        self.ticks += 1
        self._live(lambda loop: loop.tick(self._token, messages))
        if self._loop is None:
            return
        again_at = loop.again_at(self.clock.now())
        if again_at is not None:
            self._wake_at(max(second(again_at) - self.clock.skew, self.world.now + 0.001))

    def _near(self, messages: Iterable[Message]) -> set[ClusterName]:
        """Name the clusters near which something may be decided in this tick."""
        if any(books.doing in STANDING for books in self.world.books.values()):
            return set(self.world.clusters)  # a job may go anywhere
        near: set[ClusterName] = set(self._busy)
        near.update(
            one.cluster for one in self.world.machines.values() if one.faults and one.agents
        )
        for message in messages:
            if isinstance(message, Bell):
                continue
            for one in message.observations if isinstance(message, Saw) else message.seen:
                node, cluster = getattr(one, "node", None), getattr(one, "cluster", None)
                if node is not None:
                    near.add(self.world.machines[node].cluster)
                elif cluster is not None:
                    near.add(cluster)
        return near

    def busy(self, clusters: set[ClusterName]) -> None:
        """Hear which clusters have nodes that are on their way."""
        self._busy = clusters

    def _live(self, act: Callable[[Loop], None]) -> None:
        if self._loop is None:
            return
        try:
            act(self._loop)
        except KilledError:
            self.ledger.die_at = 0
            self.kill()
