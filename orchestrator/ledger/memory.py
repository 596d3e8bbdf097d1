"""The in-memory twin of the ledger: for the simulator and for tests. Forgotten with the process.

The same rules as in SQL, over plain lists; the contract suite runs on both. Only what is for
strangers is left out: it keeps objects, not rows, and takes any observation as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
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
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import Attempt, AttemptState, Job, SeatGrant
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

START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class MemoryLedger:
    """A ledger of plain Python objects; one lock makes each method a transaction."""

    _lease: Holder | None = None
    _token: int = 0
    _fleet: Fleet = field(default_factory=lambda: Fleet(START))
    _attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    _grants: dict[tuple[str, int], list[SeatGrant]] = field(default_factory=dict)
    _incidents: list[Incident] = field(default_factory=list)
    _alerts: dict[int, dict[str, Any]] = field(default_factory=dict)
    _settlements: list[Settlement] = field(default_factory=list)
    _open: dict[str, int] = field(default_factory=dict)  #: key -> index of its open intent
    _tries: dict[str, int] = field(default_factory=dict)
    _orders: list[Ordered] = field(default_factory=list)
    _answers: dict[int, tuple[bool, str]] = field(default_factory=dict)
    _observations: list[Recorded] = field(default_factory=list)
    _observed: int = 0
    _events: list[Event] = field(default_factory=list)
    _notes: set[str] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)

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
            for one in after.attempts:
                self._attempts[(one.job, one.number)] = one
                if isinstance(decision, IssueGrant) and one.grant is not None:
                    self._keep_grant(decision, one)
            self._keep_incidents(after, now)
            self._fleet = after
            if isinstance(decision, SettleOrder):
                self._answers.setdefault(decision.order, (decision.done, decision.reason))
            self._tell(telling.of_decision(decision, now, before), now)

    def _keep_grant(self, decision: IssueGrant, attempt: Attempt) -> None:
        named = (attempt.job, attempt.number)
        if named == (decision.job, decision.attempt) and attempt.grant is not None:
            self._grants.setdefault(named, []).append(attempt.grant)

    def _keep_incidents(self, after: Fleet, now: datetime) -> None:
        are = {(one.page, one.subject) for one in after.incidents}
        opened = {(one.page, one.subject) for one in self._incidents if one.closed_at is None}
        for index, one in enumerate(self._incidents):
            if one.closed_at is None and (one.page, one.subject) not in are:
                self._incidents[index] = replace(one, closed_at=now)
        for one in after.incidents:
            if (one.page, one.subject) not in opened:
                self._incidents.append(replace(one, number=len(self._incidents) + 1))

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
            self._open[name] = len(self._settlements)
            self._settlements.append(Settlement(intent, self._tries[name]))
            spent = uses(Fleet(now), decision, now)
            if spent is not None:
                self._fleet = replace(self._fleet, used=(*self._fleet.used, spent))
            self._tell(telling.of_decision(decision, now), now)
            return intent

    def settle(
        self, token: int, key: str, now: datetime, *, ok: bool, text: str, data: Mapping[str, Any]
    ) -> None:
        """Write what came of an intent, exactly once; a second outcome is ignored."""
        with self._own(token):
            index = self._open.pop(key, None)
            if index is None:
                return
            one = self._settlements[index]
            self._settlements[index] = replace(
                one, ok=ok, text=text, settled_at=now, data=dict(data)
            )
            self._tell(telling.of_outcome(one.intent.decision, ok=ok, text=text, now=now), now)

    def event(self, token: int, event: Event, now: datetime) -> None:
        """Tell something."""
        with self._own(token):
            self._tell(event, now)

    def _tell(self, event: Event, now: datetime) -> None:
        self._events.append(replace(event, recorded_at=now, number=len(self._events) + 1))

    def remember_alert(self, token: int, incident: int, state: Mapping[str, Any]) -> None:
        """Keep what an alert's sink needs to find its thread again."""
        with self._own(token):
            self._alerts[incident] = dict(state)

    def prune(self, token: int, before: datetime) -> int:
        """Forget observations older than a moment; return how many."""
        with self._own(token):
            old = [one.number for one in self._observations if one.recorded_at < before]
            gone = set(old[:PRUNE_MAX])
            self._observations = [one for one in self._observations if one.number not in gone]
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
            number = len(self._orders) + 1
            order = Ordered(number, now, by, kind, subject, reason, dict(body))
            self._orders.append(order)
            self._tell(telling.of_order(order), now)
            return number

    def order_answer(self, number: int) -> tuple[bool, str] | None:
        """Return (done, reason) of an order that was settled; None while it is open."""
        return self._answers.get(number)

    def orders_open(self) -> tuple[Ordered, ...]:
        """Return the orders that wait, by number."""
        return tuple(one for one in self._orders if one.number not in self._answers)

    # -- reading -----------------------------------------------------------------------------

    def _present(self, now: datetime) -> Fleet:
        last = {job.name: job.attempts for job in self._fleet.jobs.values()}
        kept = [
            one
            for one in self._attempts.values()
            if one.state is not AttemptState.CLOSED or last.get(one.job) == one.number
        ]
        return replace(
            self._fleet,
            now=now,
            attempts=tuple(sorted(kept, key=lambda one: (one.job, one.number))),
            intents=tuple(self._settlements[index].intent for index in self._open.values()),
            incidents=tuple(one for one in self._incidents if one.closed_at is None),
            used=tuple(one for one in self._fleet.used if one.at > now - BUDGETS),
            settled=self._settled_lately(now),
        )

    def _settled_lately(self, now: datetime) -> tuple[Settled, ...]:
        newest: dict[str, Settled] = {}
        for one in self._settlements:
            repair = isinstance(one.intent.decision, Repair)
            since = now - (BUDGETS if repair else LATELY)
            if one.settled_at is not None and one.settled_at > since:
                name = one.intent.key
                newest[name] = Settled(name, one.settled_at, bool(one.ok), one.text)
        return tuple(newest.values())

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
        return tuple(one for one in self._incidents if not open_only or one.closed_at is None)

    def settlements(self, limit: int = 500) -> tuple[Settlement, ...]:
        """Return the newest intents with their outcomes, oldest first."""
        return tuple(self._settlements[-limit:])

    def observed(self, after: int = 0, limit: int = 1_000) -> tuple[Recorded, ...]:
        """Return observations that are still kept, by number, beginning behind `after`."""
        return tuple(one for one in self._observations if one.number > after)[:limit]

    def alert_states(self) -> dict[int, dict[str, Any]]:
        """Return what `remember_alert` keeps, by incident."""
        return dict(self._alerts)

    def close(self) -> None:
        """Nothing to let go of."""
