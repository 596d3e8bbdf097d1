"""The tick: observe, record, assess, decide, act. One thread decides and writes.

Messages come from the pools (what was seen, what came of an intent) and from the bells. A tick
records what was seen, settles what came, reconciles until the ledger agrees with itself, writes
the intents, and hands them to the pools. It may be killed at any instruction: what was seen is
recorded before it is thought about, an intent is written before it is carried out, and after a
restart an intent without an outcome is looked at again, never blindly repeated.
"""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.actuators.hands import Done
from orchestrator.core.assess import assess
from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import Effect, Examine, Intent, LedgerOnly, TestPairs, key
from orchestrator.core.explain import explain
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import UnlawfulStepError
from orchestrator.core.nodes import UnlawfulMoveError
from orchestrator.core.observations import Observation
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import Plan, Recall, new_recall, reconcile
from orchestrator.daemon.clock import Clock
from orchestrator.daemon.pools import LASTING
from orchestrator.daemon.rhythm import Bell
from orchestrator.errors import HoldfastError, TransientError
from orchestrator.ledger.api import Event, Ledger

LOG = logging.getLogger("holdfast")
ROUNDS_MAX = 30  #: of reconciling within one tick; more is a bug, and is said
NAP_MAX = 0.5  #: seconds between ticks at most: orders of people wait in the ledger
KEEP_OBSERVATIONS = timedelta(days=7)
FORGET_EVERY = 3600.0  #: seconds
FIRST_LOOK = 15.0  #: seconds the first look after a start may take


@dataclass(frozen=True, slots=True)
class Saw:
    """Observations from a pool."""

    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Came:
    """What came of an intent."""

    key: str
    ok: bool
    text: str
    seen: tuple[Observation, ...] = ()
    passing: bool = False  #: it failed for a reason that passes by itself


Message = Saw | Came | Bell


class Workers(Protocol):
    """Where looking and acting is done, so that deciding never waits for it."""

    @property
    def idle(self) -> bool:
        """Say whether nothing is under way."""
        ...

    def submit(self, pool: str, key: str, work: Callable[[], None], /) -> bool:
        """Run `work` in `pool`; False if it cannot be begun, or the same key is under way."""
        ...

    def wait(self, limit: float, /) -> bool:
        """Wait at most `limit` seconds until nothing is under way; say whether that came true."""
        ...

    def close(self) -> None:
        """Take no more work."""
        ...


class Sight(Protocol):
    """What the loop looks with: `eyes.Eyes`, or the simulator's."""

    @property
    def pools(self) -> Workers:
        """Where looking is done."""
        ...

    def look(self, bell: Bell, fleet: Fleet, token: int, /) -> None:
        """Look at what this bell means; what was seen comes back as `Saw`."""
        ...

    def remember(self, observations: Sequence[Observation], /) -> None:
        """Note what the ledger holds now."""
        ...


class Reach(Protocol):
    """What the loop acts with: `actuators.hands.Hands`, or the simulator's."""

    def carry_out(self, decision: Effect, fleet: Fleet, token: int, /) -> Done:
        """Do it. Raises a `HoldfastError` if it could not be done."""
        ...


class Inbox(Protocol):
    """Where messages wait for the next tick: a `queue.SimpleQueue`, or the simulator's."""

    def put(self, message: Message, /) -> None:
        """Leave a message."""
        ...

    def get(self, *, timeout: float) -> Message:
        """Wait for a message; raises `queue.Empty` when the time is over."""
        ...

    def get_nowait(self) -> Message:
        """Take a message; raises `queue.Empty` if there is none."""
        ...

    def empty(self) -> bool:
        """Say whether no message waits."""
        ...


@dataclass(slots=True)
class Backoff:
    """Holds a decision that just failed, longer each time, so that a retry is not a storm."""

    first: timedelta = timedelta(seconds=0.5)
    most: timedelta = timedelta(seconds=10)
    _held: dict[str, tuple[datetime, timedelta]] = field(default_factory=dict)

    def failed(self, key: str, now: datetime) -> None:
        """Hold the decision with this key for a while."""
        _, pause = self._held.get(key, (now, self.first / 2))
        pause = min(pause * 2, self.most)
        self._held[key] = (now + pause, pause)

    def succeeded(self, key: str) -> None:
        """Forget its failures."""
        self._held.pop(key, None)

    def holds(self, key: str, now: datetime) -> bool:
        """Say whether the decision must still wait."""
        until, _ = self._held.get(key, (now, self.first))
        return now < until

    def next(self, now: datetime) -> datetime | None:
        """Return when the first held decision may be tried again."""
        return min((until for until, _ in self._held.values() if until > now), default=None)


@dataclass(slots=True)
class Loop:
    """The daemon without its clothes: no signals, no lease, no scheduler."""

    ledger: Ledger
    eyes: Sight
    hands: Reach
    policy: Policy
    clusters: tuple[Cluster, ...]
    clock: Clock
    inbox: Inbox
    tell: Callable[[int, datetime], None]  #: called with the token after each tick
    backoff: Backoff = field(default_factory=Backoff)
    _again_at: datetime | None = None
    _recall: Recall = field(default_factory=new_recall)  #: what the last look found out
    _forget_at: float = 0.0
    _beliefs: Beliefs = field(default_factory=Beliefs)
    _orders_seen: frozenset[int] = frozenset()  #: open ones; after a restart recorded again
    _unsettled: list[Came] = field(default_factory=list)  #: kept until the ledger has them

    def first_look(self, token: int) -> None:
        """Look at everything once, then settle what the last controller left half-done."""
        now = self.clock.now()
        fleet = self.ledger.snapshot(now, self.clusters)
        self._beliefs = fleet.beliefs
        self._unsettled.clear()  # of an earlier reign: settled below, with all the others
        for bell in (Bell.INVENTORY, Bell.AGENTS, Bell.REGISTERS, Bell.PROBES):
            self.eyes.look(bell, fleet, token)
        self._record(token, self._gather())
        for intent in self.ledger.snapshot(self.clock.now(), self.clusters).intents:
            text = "the controller ended before the outcome was known; looked at again"
            self.ledger.settle(token, intent.key, self.clock.now(), ok=False, text=text, data={})
        self._say_hello(token, fleet.beliefs, now)

    def _say_hello(self, token: int, before: Beliefs, now: datetime) -> None:
        """Tell that a controller began to act, and how many agents it found alive."""
        nodes = self._beliefs.nodes.values()
        alive = [a for n in nodes for a in n.agents if a.report and not a.gone_at]
        started = "started again" if before.nodes else "started"
        text = f"the controller {started} (token {token}) and found {len(alive)} agents at work"
        self.ledger.event(token, Event(now, "daemon-started", ("controller",), text), now)

    def _gather(self) -> list[Observation]:
        end = self.clock.elapsed() + FIRST_LOOK
        seen: list[Observation] = []
        while self.clock.elapsed() < end:
            with contextlib.suppress(queue.Empty):
                message = self.inbox.get(timeout=0.05)
                if isinstance(message, Saw):
                    seen.extend(message.observations)
                continue
            if self.eyes.pools.idle and self.inbox.empty():
                break
        return seen

    def turn(self, token: int) -> None:
        """Wait for something to happen, and tick."""
        self.tick(token, list(self._messages()))

    def _messages(self) -> Iterator[Message]:
        try:
            yield self.inbox.get(timeout=self._nap())
            while True:
                yield self.inbox.get_nowait()
        except queue.Empty:
            return

    def _nap(self) -> float:
        now = self.clock.now()
        again_at = self.again_at(now)
        wait = NAP_MAX if again_at is None else (again_at - now).total_seconds()
        return max(0.001, min(NAP_MAX, wait))

    def again_at(self, now: datetime) -> datetime | None:
        """Return when to tick again though nothing happens; None: only news can change anything."""
        moments = (self._again_at, self.backoff.next(now))
        return min((moment for moment in moments if moment is not None), default=None)

    def tick(self, token: int, messages: Sequence[Message]) -> None:
        """Record what was seen, settle what came, decide, act.

        Where the ledger fails in between, observations may be lost (they are seen again), but
        never an outcome: nothing else would end its intent.
        """
        self._unsettled += [message for message in messages if isinstance(message, Came)]
        seen = [one for m in messages if isinstance(m, Saw) for one in m.observations]
        seen += [one for message in self._unsettled for one in message.seen]
        self._record(token, seen)
        self._settle(token)
        fleet = self._decide(token)
        for bell in {message for message in messages if isinstance(message, Bell)}:
            self.eyes.look(bell, fleet, token)
        self.tell(token, self.clock.now())
        self._forget(token)

    def _forget(self, token: int) -> None:
        """Once an hour, forget observations that beliefs no longer need for a replay."""
        elapsed = self.clock.elapsed()
        if elapsed >= self._forget_at:
            forgotten = self.ledger.prune(token, self.clock.now() - KEEP_OBSERVATIONS)
            self._forget_at = elapsed + (0.0 if forgotten else FORGET_EVERY)

    def _record(self, token: int, seen: list[Observation]) -> None:
        waiting = self.ledger.orders_open()  # a lower number may become visible after a higher one
        fresh = [one for one in waiting if one.number not in self._orders_seen]
        if seen or fresh:
            now = self.clock.now()
            after = self.ledger.record(token, [*seen, *fresh], now, assess)
            self._beliefs = after
            self.eyes.remember(seen)
        self._orders_seen = frozenset(order.number for order in waiting)

    def _settle(self, token: int) -> None:
        while self._unsettled:
            one, now = self._unsettled[0], self.clock.now()
            data = {"passing": True} if one.passing else {}
            self.ledger.settle(token, one.key, now, ok=one.ok, text=one.text, data=data)
            del self._unsettled[0]
            if one.ok:
                self.backoff.succeeded(one.key)
            else:
                self.backoff.failed(one.key, now)

    def _decide(self, token: int) -> Fleet:
        """Bring the ledger to where it agrees with itself, then act on what is left to do."""
        fleet, plan = self._look()
        for _ in range(ROUNDS_MAX):
            mine = [decision for decision in plan.decisions if isinstance(decision, LedgerOnly)]
            if not mine:
                break
            applied = [self._apply(token, decision, fleet.now) for decision in mine]
            if not any(applied):
                break
            fleet, plan = self._look()
        else:
            LOG.error("the decisions did not settle within %d rounds", ROUNDS_MAX)
        self._again_at = plan.look_again_at
        for effect in plan.decisions:
            if not isinstance(effect, LedgerOnly):
                self._act(token, effect, fleet)
        return fleet

    def _apply(self, token: int, decision: LedgerOnly, now: datetime) -> bool:
        """Apply one; one that is unlawful is a bug, told loudly, and must not stop the others."""
        try:
            self.ledger.apply(token, decision, now)
        except (UnlawfulMoveError, UnlawfulStepError):
            LOG.exception("not applied: %s", explain(decision))
            return False
        LOG.info("%s", explain(decision))
        return True

    def _look(self) -> tuple[Fleet, Plan]:
        fleet = self.ledger.snapshot(self.clock.now(), self.clusters)
        return fleet, reconcile(fleet, self.policy, self._recall)

    def _act(self, token: int, decision: Effect, fleet: Fleet) -> None:
        now = self.clock.now()
        if self.backoff.holds(key(decision), now):
            return
        pool = pool_of(decision, fleet)
        intent = self.ledger.intend(token, decision, now, now + self.policy.intent_limit)
        if intent is not None:
            LOG.info("%s", explain(decision))
            self._carry_out(token, intent, fleet, pool)

    def _carry_out(self, token: int, intent: Intent, fleet: Fleet, pool: str) -> None:
        def work() -> None:
            try:
                done = self.hands.carry_out(intent.decision, fleet, token)
                self.inbox.put(Came(intent.key, True, done.text, done.seen))
            except HoldfastError as error:
                passing = isinstance(error, TransientError)
                self.inbox.put(Came(intent.key, False, str(error), passing=passing))
            except Exception as error:
                LOG.exception("%s", explain(intent.decision))
                self.inbox.put(Came(intent.key, False, f"{type(error).__name__}: {error}"))

        if not self.eyes.pools.submit(pool, f"act {intent.key}", work):
            text = "not begun: the daemon is stopping, or the same is still under way"
            self.inbox.put(Came(intent.key, False, text))


def pool_of(decision: Effect, fleet: Fleet) -> str:
    """Name the pool that carries a decision out: its cluster's, or the registers'.

    Tests between nodes and examinations take long, and keep nobody else waiting.
    """
    if isinstance(decision, TestPairs):
        return f"{LASTING}{decision.inquiry.cluster}"
    if isinstance(decision, Examine):
        return f"{LASTING}{decision.cluster}"
    node = getattr(decision, "node", None)
    return fleet.nodes[node].cluster if node is not None else "registers"


__all__ = ["Backoff", "Came", "Done", "Loop", "Message", "Saw", "pool_of"]
