"""The ledger on SQLite (WAL) or PostgreSQL.

SQLite: every write begins with BEGIN IMMEDIATE, so that it waits for its turn instead of failing
in the middle; synchronous=FULL, so that an intent survives a power loss. PostgreSQL: the lease row
is locked by every write, reads see one moment (REPEATABLE READ).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import Effect, Incident, Intent, IssueGrant, LedgerOnly, key
from orchestrator.core.enact import enact, uses
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import Attempt, Job, SeatGrant
from orchestrator.core.observations import Observation, Ordered, OrderKind
from orchestrator.ledger import codec, telling
from orchestrator.ledger.api import (
    BUDGETS,
    PRUNE_MAX,
    Assess,
    Event,
    Holder,
    Recorded,
    Settlement,
    StaleTokenError,
)
from orchestrator.ledger.changes import changes, of_beliefs
from orchestrator.ledger.database import Database
from orchestrator.ledger.rows import (
    NAME,
    Connection,
    Shared,
    append,
    first_lease,
    inserted,
    keep_grant,
    read_beliefs,
    read_event,
    read_fleet,
    read_incidents,
    read_intent,
    read_lease,
    read_order,
    read_settlement,
    set_lease,
    settle_order,
    store,
    store_rest,
    tell,
    use,
)
from orchestrator.ledger.tables import (
    event_subjects,
    events,
    grants,
    incidents,
    intents,
    lease,
    orders,
    used,
)
from orchestrator.ledger.tables import observations as seen_rows


@dataclass(slots=True)
class SqlLedger:
    """A ledger in a database. One object may be used by several threads."""

    database: Database
    _shared: Shared = field(default_factory=Shared)

    # -- the lease ---------------------------------------------------------------------------

    def acquire(self, holder: str, ttl: timedelta, now: datetime) -> int | None:
        """Take the lease if it is free, expired or ours; the token grows with each taking."""
        with self.database.write() as db:
            row = read_lease(db)
            if row is None:
                return first_lease(db, holder, now + ttl)
            if row.holder not in ("", holder) and row.expires_at > now:
                return None
            token = int(row.token) + 1
            set_lease(db, holder=holder, token=token, expires_at=now + ttl)
            return token

    def renew(self, token: int, ttl: timedelta, now: datetime) -> bool:
        """Keep the lease; False if it is somebody else's by now."""
        with self.database.write() as db:
            mine = lease.update().where(
                lease.c.name == NAME, lease.c.token == token, lease.c.holder != ""
            )
            return bool(db.execute(mine.values(expires_at=now + ttl)).rowcount)

    def release(self, token: int) -> None:
        """Give the lease back, if it is still the one with this token."""
        with self.database.write() as db:
            mine = lease.update().where(lease.c.name == NAME, lease.c.token == token)
            db.execute(mine.values(holder="", expires_at=datetime(1970, 1, 1, tzinfo=UTC)))

    def holder(self) -> Holder | None:
        """Say who holds the lease, expired or not; None if it was given back."""
        with self.database.read() as db:
            row = read_lease(db, lock=False)
        if row is None or not row.holder:
            return None
        return Holder(row.holder, int(row.token), row.expires_at)

    @contextmanager
    def _own(self, token: int) -> Iterator[Connection]:
        """Begin a write of the lease's holder; the row stays locked until the end."""
        with self.database.write() as db:
            row = read_lease(db)
            if row is None or int(row.token) != token or not row.holder:
                other = "nobody" if row is None else f"token {row.token}"
                raise StaleTokenError(f"the lease is held by {other}, not by token {token}")
            yield db

    # -- the daemon's writes -----------------------------------------------------------------

    def record(
        self, token: int, observations: Sequence[Observation], now: datetime, assess: Assess
    ) -> Beliefs:
        """Append observations and the beliefs that follow from them, in one transaction."""
        kept, refused = codec.sift(observations)
        seen = [one for one, _ in kept]
        with self._own(token) as db:
            before = read_beliefs(db, self._shared)
            after = assess(before, seen, now)
            store(db, of_beliefs(before, after))
            append(db, kept, now)
            for told in telling.of_beliefs(before, after):
                tell(db, told, now)
            for note, told in telling.of_notes(seen):
                tell(db, told, now, note)
            for one, reason in refused:
                note, told = telling.of_refusal(one, reason, now)
                tell(db, told, now, note)
        return after

    def apply(self, token: int, decision: LedgerOnly, now: datetime) -> None:
        """Enact a decision on the state and tell it as an event, in one transaction."""
        with self._own(token) as db:
            before = read_fleet(db, self._shared, now, ())
            after = enact(before, decision, now)
            store(db, changes(before, after))
            store_rest(db, before, after, now)
            if isinstance(decision, IssueGrant):
                keep_grant(db, decision, after)
            tell(db, telling.of_decision(decision, now, before), now)
            settle_order(db, decision)

    def intend(
        self, token: int, decision: Effect, now: datetime, deadline: datetime
    ) -> Intent | None:
        """Write an intent; None if one with the same key has no outcome yet."""
        name = key(decision)
        with self._own(token) as db:
            open_one = sa.and_(intents.c.key == name, intents.c.settled_at.is_(None))
            if db.scalar(sa.select(sa.func.count()).where(open_one)):
                return None
            tries = db.scalar(sa.select(sa.func.count()).where(intents.c.key == name)) or 0
            db.execute(
                intents.insert().values(
                    key=name,
                    tries=tries + 1,
                    kind=type(decision).__name__,
                    body=codec.encode(decision),
                    at=now,
                    deadline=deadline,
                    token=token,
                )
            )
            use(db, uses(Fleet(now), decision, now))
            tell(db, telling.of_decision(decision, now), now)
        return Intent(name, decision, now, deadline, token)

    def settle(
        self, token: int, key: str, now: datetime, *, ok: bool, text: str, data: Mapping[str, Any]
    ) -> None:
        """Write what came of an intent, exactly once; a second outcome is ignored."""
        with self._own(token) as db:
            mine = sa.and_(intents.c.key == key, intents.c.settled_at.is_(None))
            row = db.execute(sa.select(intents).where(mine)).first()
            if row is None:
                return
            outcome = {"ok": ok, "text": text, "data": dict(data), "settled_at": now}
            db.execute(intents.update().where(mine).values(outcome))
            decision = read_intent(row).decision
            tell(db, telling.of_outcome(decision, ok=ok, text=text, now=now), now)

    def event(self, token: int, event: Event, now: datetime) -> None:
        """Tell something."""
        with self._own(token) as db:
            tell(db, event, now)

    def remember_alert(self, token: int, incident: int, state: Mapping[str, Any]) -> None:
        """Keep what an alert's sink needs to find its thread again."""
        with self._own(token) as db:
            mine = incidents.update().where(incidents.c.number == incident)
            db.execute(mine.values(alert=dict(state)))

    def prune(self, token: int, before: datetime) -> int:
        """Forget observations older than a moment; return how many."""
        with self._own(token) as db:
            db.execute(used.delete().where(used.c.at < before - BUDGETS))
            old = sa.select(seen_rows.c.number).where(seen_rows.c.recorded_at < before)
            first = old.order_by(seen_rows.c.number).limit(PRUNE_MAX)
            gone = seen_rows.delete().where(seen_rows.c.number.in_(first.scalar_subquery()))
            return db.execute(gone).rowcount

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
        row = {"at": now, "by": by, "kind": kind.value, "subject": subject, "reason": reason}
        with self.database.write() as db:
            number = inserted(db.execute(orders.insert().values(**row, body=dict(body))))
            order = Ordered(number, now, by, kind, subject, reason, dict(body))
            tell(db, telling.of_order(order), now)
        return number

    def order_answer(self, number: int) -> tuple[bool, str] | None:
        """Return (done, reason) of an order that was settled; None while it is open."""
        with self.database.read() as db:
            row = db.execute(sa.select(orders).where(orders.c.number == number)).first()
        return None if row is None or row.done is None else (bool(row.done), str(row.answer))

    def orders_open(self) -> tuple[Ordered, ...]:
        """Return the orders that wait, by number."""
        waiting = sa.select(orders).where(orders.c.done.is_(None)).order_by(orders.c.number)
        with self.database.read() as db:
            rows = db.execute(waiting).all()
        return tuple(read_order(row) for row in rows)

    # -- reading -----------------------------------------------------------------------------

    def snapshot(self, now: datetime, clusters: tuple[Cluster, ...]) -> Fleet:
        """Return everything `reconcile` looks at."""
        with self.database.read() as db:
            return read_fleet(db, self._shared, now, clusters)

    def story(
        self, subject: str | None, since: datetime | None = None, limit: int = 500
    ) -> list[Event]:
        """Return the newest events about a subject (None: all), oldest first."""
        wanted = sa.select(events).order_by(events.c.at.desc(), events.c.number.desc())
        if subject is not None:
            about = sa.select(event_subjects.c.event).where(event_subjects.c.subject == subject)
            wanted = wanted.where(events.c.number.in_(about))
        if since is not None:
            wanted = wanted.where(events.c.at >= since)
        with self.database.read() as db:
            rows = db.execute(wanted.limit(limit)).all()
        return [read_event(row) for row in reversed(rows)]

    def told(
        self, subject: str, kinds: Collection[str], after: int = 0, limit: int = 1_000
    ) -> tuple[Event, ...]:
        """Return events of some kinds about a subject, by number, beginning behind `after`."""
        about = sa.and_(event_subjects.c.subject == subject, event_subjects.c.event > after)
        both = events.join(event_subjects, event_subjects.c.event == events.c.number)
        wanted = sa.select(events).select_from(both).where(about, events.c.kind.in_(sorted(kinds)))
        with self.database.read() as db:
            rows = db.execute(wanted.order_by(events.c.number).limit(limit)).all()
        return tuple(read_event(row) for row in rows)

    def jobs(self) -> tuple[Job, ...]:
        """Return every job."""
        with self.database.read() as db:
            return tuple(self._shared.read(db, "Job")["Job"].values())

    def attempts(self, job: str | None = None) -> tuple[Attempt, ...]:
        """Return every attempt, of one job or of all."""
        with self.database.read() as db:
            found: list[Attempt] = list(self._shared.read(db, "Attempt")["Attempt"].values())
        wanted = [one for one in found if job is None or one.job == job]
        return tuple(sorted(wanted, key=lambda one: (one.job, one.number)))

    def grants(self, job: str, attempt: int) -> tuple[SeatGrant, ...]:
        """Return every grant that was issued to an attempt."""
        mine = sa.and_(grants.c.job == job, grants.c.attempt == attempt)
        with self.database.read() as db:
            rows = db.execute(sa.select(grants).where(mine).order_by(grants.c.number)).all()
        return tuple(codec.decode("SeatGrant", row.body) for row in rows)

    def incidents(self, *, open_only: bool) -> tuple[Incident, ...]:
        """Return incidents by number."""
        with self.database.read() as db:
            return read_incidents(db, open_only=open_only)

    def settlements(self, limit: int = 500) -> tuple[Settlement, ...]:
        """Return the newest intents with their outcomes, oldest first."""
        newest = sa.select(intents).order_by(intents.c.number.desc()).limit(limit)
        with self.database.read() as db:
            rows = db.execute(newest).all()
        return tuple(read_settlement(row) for row in reversed(rows))

    def observed(self, after: int = 0, limit: int = 1_000) -> tuple[Recorded, ...]:
        """Return observations that are still kept, by number, beginning behind `after`."""
        wanted = sa.select(seen_rows).where(seen_rows.c.number > after)
        with self.database.read() as db:
            rows = db.execute(wanted.order_by(seen_rows.c.number).limit(limit)).all()
        return tuple(
            Recorded(int(row.number), row.recorded_at, codec.decode(row.kind, row.body))
            for row in rows
        )

    def alert_states(self) -> dict[int, dict[str, Any]]:
        """Return what `remember_alert` keeps, by incident."""
        told = sa.select(incidents.c.number, incidents.c.alert)
        with self.database.read() as db:
            rows = db.execute(told.where(incidents.c.alert.is_not(None))).all()
        return {int(row.number): dict(row.alert) for row in rows if row.alert}

    def close(self) -> None:
        """Let go of connections."""
        self.database.close()
