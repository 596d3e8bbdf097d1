"""The in-memory twin of the ledger: for the simulator and for tests. Forgotten with the process.

The same rules as in SQL, over plain lists; the contract suite runs on both. Only what is for
strangers is left out: it keeps objects, not rows, and takes any observation as it is.

A simulated year is some hundred thousand writes: none of them walks through history, and a snapshot
shares with the one before it whatever did not change. `keep` bounds what is remembered for people.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import (
    Effect,
    Incident,
    Intent,
    IssueGrant,
    LedgerOnly,
    Repair,
    Settled,
    SettleOrder,
    key,
)
from orchestrator.core.enact import enact, uses
from orchestrator.core.fleet import Cluster, Fleet, Used
from orchestrator.core.jobs import Attempt, Job, SeatGrant
from orchestrator.core.observations import Observation, Ordered, OrderKind
from orchestrator.ledger import telling
from orchestrator.ledger.api import (
    BUDGETS,
    LATELY,
    PRUNE_MAX,
    Assess,
    Event,
    Holder,
    Recorded,
    Settlement,
    StaleTokenError,
)
from orchestrator.ledger.lately import Lately

START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class MemoryLedger:
    """A ledger of plain Python objects; one lock makes each method a transaction."""

    keep: int | None = None  #: newest events, observations and outcomes remembered; None: all
    _lease: Holder | None = None
    _token: int = 0
    _fleet: Fleet = field(default_factory=lambda: Fleet(START))
    _attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    _grants: dict[tuple[str, int], list[SeatGrant]] = field(default_factory=dict)
    _incidents: dict[int, Incident] = field(default_factory=dict)
    _alerts: dict[int, dict[str, Any]] = field(default_factory=dict)
    _settlements: dict[int, Settlement] = field(default_factory=dict)
    _open: dict[str, int] = field(default_factory=dict)  #: key -> number of its open intent
    _tries: dict[str, int] = field(default_factory=dict)
    _used: Lately[Used] = field(default_factory=lambda: Lately(BUDGETS))
    _settled: Lately[Settled] = field(default_factory=lambda: Lately(LATELY))
    _repaired: Lately[Settled] = field(default_factory=lambda: Lately(BUDGETS))
    _waiting: dict[int, Ordered] = field(default_factory=dict)  #: orders without an answer
    _ordered: int = 0
    _intended: int = 0
    _observations: deque[Recorded] = field(init=False)
    _observed: int = 0
    _answers: dict[int, tuple[bool, str]] = field(default_factory=dict)
    _events: deque[Event] = field(init=False)
    _told: int = 0
    _notes: set[str] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        """Begin with an empty history."""
        self._observations, self._events = deque(maxlen=self.keep), deque(maxlen=self.keep)

    # -- the lease ---------------------------------------------------------------------------

    def acquire(self, holder: str, ttl: timedelta, now: datetime) -> int | None:
        """Take the lease if it is free, expired or ours; the token grows with each taking."""
        with self._lock:
            held = self._lease
            if held is not None and held.name != holder and held.expires_at > now:
                return None
            self._token += 1
            self._lease = Holder(holder, self._token, now + ttl)
            return self._token

    def renew(self, token: int, ttl: timedelta, now: datetime) -> bool:
        """Keep the lease; False if it is somebody else's by now."""
        with self._lock:
            if self._lease is None or self._lease.token != token:
                return False
            self._lease = replace(self._lease, expires_at=now + ttl)
            return True

    def release(self, token: int) -> None:
        """Give the lease back, if it is still the one with this token."""
        with self._lock:
            if self._lease is not None and self._lease.token == token:
                self._lease = None

    def holder(self) -> Holder | None:
        """Say who holds the lease, expired or not; None if it was given back."""
        return self._lease

    @contextmanager
    def _own(self, token: int) -> Iterator[None]:
        with self._lock:
            if self._lease is None or self._lease.token != token:
                raise StaleTokenError(f"the lease is not held by token {token}")
            yield

    # -- the daemon's writes -----------------------------------------------------------------

    def record(
        self, token: int, observations: Sequence[Observation], now: datetime, assess: Assess
    ) -> Beliefs:
        """Append observations and the beliefs that follow from them, in one transaction."""
        with self._own(token):
            before = self._fleet.beliefs
            after = assess(before, observations, now)
            self._fleet = replace(self._fleet, beliefs=after)
            for one in observations:
                self._observed += 1
                self._observations.append(Recorded(self._observed, now, one))
            for told in telling.of_beliefs(before, after):
                self._tell(told, now)
            for note, event in telling.of_notes(observations):
                if note not in self._notes:
                    self._notes.add(note)
                    self._tell(event, now)
            return after

    def apply(self, token: int, decision: LedgerOnly, now: datetime) -> None:
        """Enact a decision on the state and tell it as an event, in one transaction."""
        with self._own(token):
            before = self._present(now)
            after = enact(before, decision, now)
            if after.attempts is not before.attempts:
                self._keep_attempts(after, decision)
            if after.incidents is not before.incidents:
                after = self._keep_incidents(before, after, now)
            for spent in after.used[len(before.used) :]:
                self._used.put(spent, spent.at)
            self._fleet = after
            if isinstance(decision, SettleOrder):
                self._answers.setdefault(decision.order, (decision.done, decision.reason))
                self._waiting.pop(decision.order, None)
            self._tell(telling.of_decision(decision, now, before), now)

    def _keep_attempts(self, after: Fleet, decision: LedgerOnly) -> None:
        for one in after.attempts:
            named = (one.job, one.number)
            if self._attempts.get(named) is one:
                continue
            self._attempts[named] = one
            if isinstance(decision, IssueGrant) and one.grant is not None:
                self._grants.setdefault(named, []).append(one.grant)

    def _keep_incidents(self, before: Fleet, after: Fleet, now: datetime) -> Fleet:
        """Give numbers to what was opened, and remember when the others were closed."""
        known = {id(one) for one in before.incidents}
        here = {id(one) for one in after.incidents}
        for one in before.incidents:
            if id(one) not in here:
                self._incidents[one.number] = replace(one, closed_at=now)
        numbered = []
        for one in after.incidents:
            kept = one if id(one) in known else replace(one, number=len(self._incidents) + 1)
            self._incidents[kept.number] = kept
            numbered.append(kept)
        return replace(after, incidents=tuple(numbered))

    def intend(
        self, token: int, decision: Effect, now: datetime, deadline: datetime
    ) -> Intent | None:
        """Write an intent; None if one with the same key has no outcome yet."""
        name = key(decision)
        with self._own(token):
            if name in self._open:
                return None
            intent = Intent(name, decision, now, deadline, token)
            self._tries[name] = self._tries.get(name, 0) + 1
            self._intended += 1
            self._open[name] = self._intended
            self._settlements[self._intended] = Settlement(intent, self._tries[name])
            self._fleet = replace(self._fleet, intents=(*self._fleet.intents, intent))
            spent = uses(Fleet(now), decision, now)
            if spent is not None:
                self._used.put(spent, now)
            self._tell(telling.of_decision(decision, now), now)
            return intent

    def settle(
        self, token: int, key: str, now: datetime, *, ok: bool, text: str, data: Mapping[str, Any]
    ) -> None:
        """Write what came of an intent, exactly once; a second outcome is ignored."""
        with self._own(token):
            number = self._open.pop(key, None)
            if number is None:
                return
            one = self._settlements[number]
            self._settlements[number] = replace(
                one, ok=ok, text=text, settled_at=now, data=dict(data)
            )
            left = tuple(intent for intent in self._fleet.intents if intent.key != key)
            self._fleet = replace(self._fleet, intents=left)
            repair = isinstance(one.intent.decision, Repair)
            window = self._repaired if repair else self._settled
            window.put(Settled(key, now, ok, text, bool(data.get("passing"))), now, key)
            self._forget_settlements()
            self._tell(telling.of_outcome(one.intent.decision, ok=ok, text=text, now=now), now)

    def event(self, token: int, event: Event, now: datetime) -> None:
        """Tell something."""
        with self._own(token):
            self._tell(event, now)

    def _forget_settlements(self) -> None:
        while self.keep is not None and len(self._settlements) > self.keep + len(self._open):
            oldest = next(
                (n for n, one in self._settlements.items() if one.settled_at is not None), None
            )
            if oldest is None:
                return
            del self._settlements[oldest]

    def _tell(self, event: Event, now: datetime) -> None:
        self._told += 1
        self._events.append(replace(event, recorded_at=now, number=self._told))

    def remember_alert(self, token: int, incident: int, state: Mapping[str, Any]) -> None:
        """Keep what an alert's sink needs to find its thread again."""
        with self._own(token):
            self._alerts[incident] = dict(state)

    def prune(self, token: int, before: datetime) -> int:
        """Forget observations older than a moment; return how many."""
        with self._own(token):
            old = (one.number for one in self._observations if one.recorded_at < before)
            gone = set(islice(old, PRUNE_MAX))
            kept = (one for one in self._observations if one.number not in gone)
            self._observations = deque(kept, maxlen=self.keep)
            return len(gone)

    # -- people ------------------------------------------------------------------------------

    def order(
        self,
        kind: OrderKind,
        subject: str,
        by: str,
        reason: str,
        body: Mapping[str, Any],
        now: datetime,
    ) -> int:
        """Ask for something; returns the order's number."""
        with self._lock:
            self._ordered += 1
            order = Ordered(self._ordered, now, by, kind, subject, reason, dict(body))
            self._waiting[order.number] = order
            self._tell(telling.of_order(order), now)
            return order.number

    def order_answer(self, number: int) -> tuple[bool, str] | None:
        """Return (done, reason) of an order that was settled; None while it is open."""
        return self._answers.get(number)

    def orders_open(self) -> tuple[Ordered, ...]:
        """Return the orders that wait, by number."""
        with self._lock:
            return tuple(self._waiting.values())

    # -- reading -----------------------------------------------------------------------------

    def _present(self, now: datetime) -> Fleet:
        settled, repaired = self._settled.within(now), self._repaired.within(now)
        if self._fleet.settled != (*settled, *repaired):
            self._fleet = replace(self._fleet, settled=(*settled, *repaired))
        return replace(self._fleet, now=now, used=self._used.within(now))

    def snapshot(self, now: datetime, clusters: tuple[Cluster, ...]) -> Fleet:
        """Return everything `reconcile` looks at."""
        with self._lock:
            return replace(self._present(now), clusters=clusters)

    def story(
        self, subject: str | None, since: datetime | None = None, limit: int = 500
    ) -> list[Event]:
        """Return the newest events about a subject (None: all), oldest first."""
        wanted = [
            one
            for one in self._events
            if (subject is None or subject in one.subjects) and (since is None or one.at >= since)
        ]
        return sorted(wanted, key=lambda one: (one.at, one.number))[-limit:]

    def told(
        self, subject: str, kinds: Collection[str], after: int = 0, limit: int = 1_000
    ) -> tuple[Event, ...]:
        """Return events of some kinds about a subject, by number, beginning behind `after`."""
        skipped = max(0, after - self._events[0].number + 1) if self._events else 0
        later = (one for one in islice(self._events, skipped, None) if one.kind in kinds)
        return tuple(islice((one for one in later if subject in one.subjects), limit))

    def jobs(self) -> tuple[Job, ...]:
        """Return every job."""
        return tuple(job for _, job in sorted(self._fleet.jobs.items()))

    def attempts(self, job: str | None = None) -> tuple[Attempt, ...]:
        """Return every attempt, of one job or of all."""
        return tuple(
            one for _, one in sorted(self._attempts.items()) if job is None or one.job == job
        )

    def grants(self, job: str, attempt: int) -> tuple[SeatGrant, ...]:
        """Return every grant that was issued to an attempt."""
        return tuple(self._grants.get((job, attempt), ()))

    def incidents(self, *, open_only: bool) -> tuple[Incident, ...]:
        """Return incidents by number."""
        found = self._incidents.values()
        return tuple(one for one in found if not open_only or one.closed_at is None)

    def settlements(self, limit: int = 500) -> tuple[Settlement, ...]:
        """Return the newest intents with their outcomes, oldest first."""
        return tuple(self._settlements.values())[-limit:]

    def observed(self, after: int = 0, limit: int = 1_000) -> tuple[Recorded, ...]:
        """Return observations that are still kept, by number, beginning behind `after`."""
        later = (one for one in self._observations if one.number > after)
        return tuple(islice(later, limit))

    def alert_states(self) -> dict[int, dict[str, Any]]:
        """Return what `remember_alert` keeps, by incident."""
        return dict(self._alerts)

    def close(self) -> None:
        """Nothing to let go of."""
