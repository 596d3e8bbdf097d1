"""The ledger on SQLite (WAL) or PostgreSQL.

SQLite: every write begins with BEGIN IMMEDIATE, so that it waits for its turn instead of failing
in the middle; synchronous=FULL, so that an intent survives a power loss. PostgreSQL: the lease row
is locked by every write, reads see one moment (REPEATABLE READ).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from orchestrator.core.beliefs import Beliefs, ClusterBelief, NodeBelief, RegisterBelief
from orchestrator.core.decisions import (
    Effect,
    Incident,
    Intent,
    IssueGrant,
    LedgerOnly,
    SettleOrder,
    key,
)
from orchestrator.core.enact import enact, uses
from orchestrator.core.fleet import Cluster, Fleet, Used
from orchestrator.core.jobs import Attempt, AttemptState, Job, SeatGrant
from orchestrator.core.nodes import Node
from orchestrator.core.observations import Observation, Ordered, OrderKind
from orchestrator.core.pages import Page
from orchestrator.errors import PermanentError
from orchestrator.ledger import codec, telling
from orchestrator.ledger.api import Assess, Event, Holder, Settlement, StaleTokenError
from orchestrator.ledger.changes import Change, OrderBook, changes, of_beliefs
from orchestrator.ledger.database import Database
from orchestrator.ledger.tables import (
    documents,
    event_subjects,
    events,
    grants,
    incidents,
    intents,
    lease,
    observations,
    orders,
    used,
)

NAME = "controller"  #: of the one lease
BUDGETS = timedelta(days=1)  #: how far back `Fleet.used` goes

Connection = sa.Connection
_decode = lru_cache(maxsize=65_536)(codec.decode)  # rows are frozen objects: sharing is safe


@dataclass(slots=True)
class SqlLedger:
    """A ledger in a database. One object may be used by several threads."""

    database: Database

    # -- the lease ---------------------------------------------------------------------------

    def acquire(self, holder: str, ttl: timedelta, now: datetime) -> int | None:
        """Take the lease if it is free, expired or ours; the token grows with each taking."""
        with self.database.write() as db:
            row = _lease_row(db)
            if row is None:
                return _first_lease(db, holder, now + ttl)
            if row.holder not in ("", holder) and row.expires_at > now:
                return None
            token = int(row.token) + 1
            _set_lease(db, holder=holder, token=token, expires_at=now + ttl)
            return token

    def renew(self, token: int, ttl: timedelta, now: datetime) -> bool:
        """Keep the lease; False if it is somebody else's by now."""
        with self.database.write() as db:
            mine = lease.update().where(lease.c.name == NAME, lease.c.token == token)
            return bool(db.execute(mine.values(expires_at=now + ttl)).rowcount)

    def release(self, token: int) -> None:
        """Give the lease back, if it is still the one with this token."""
        with self.database.write() as db:
            mine = lease.update().where(lease.c.name == NAME, lease.c.token == token)
            db.execute(mine.values(holder="", expires_at=datetime(1970, 1, 1, tzinfo=UTC)))

    def holder(self) -> Holder | None:
        """Say who holds the lease, expired or not; None if it was given back."""
        with self.database.read() as db:
            row = _lease_row(db, lock=False)
        if row is None or not row.holder:
            return None
        return Holder(row.holder, int(row.token), row.expires_at)

    @contextmanager
    def _own(self, token: int) -> Iterator[Connection]:
        """Begin a write of the lease's holder; the row stays locked until the end."""
        with self.database.write() as db:
            row = _lease_row(db)
            if row is None or int(row.token) != token or not row.holder:
                other = "nobody" if row is None else f"token {row.token}"
                raise StaleTokenError(f"the lease is held by {other}, not by token {token}")
            yield db

    # -- the daemon's writes -----------------------------------------------------------------

    def record(
        self, token: int, observations_: Sequence[Observation], now: datetime, assess: Assess
    ) -> Beliefs:
        """Append observations and the beliefs that follow from them, in one transaction."""
        with self._own(token) as db:
            before = _beliefs(db)
            after = assess(before, observations_, now)
            _store(db, of_beliefs(before, after))
            _append(db, observations_, now)
            for note, event in telling.of_notes(observations_):
                _tell(db, event, now, note)
        return after

    def apply(self, token: int, decision: LedgerOnly, now: datetime) -> None:
        """Enact a decision on the state and tell it as an event, in one transaction."""
        with self._own(token) as db:
            before = _fleet(db, now, ())
            after = enact(before, decision, now)
            _store(db, changes(before, after))
            _store_rest(db, before, after, now)
            if isinstance(decision, IssueGrant):
                _keep_grant(db, decision, after)
            _tell(db, telling.of_decision(decision, now), now)
            _settle_order(db, decision)

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
            _use(db, uses(Fleet(now), decision, now))
            _tell(db, telling.of_decision(decision, now), now)
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
            decision: Effect = _decode(row.kind, row.body)
            _tell(db, telling.of_outcome(decision, ok=ok, text=text, now=now), now)

    def event(self, token: int, event: Event, now: datetime) -> None:
        """Tell something."""
        with self._own(token) as db:
            _tell(db, event, now)

    def remember_alert(self, token: int, incident: int, state: Mapping[str, Any]) -> None:
        """Keep what an alert's sink needs to find its thread again."""
        with self._own(token) as db:
            mine = incidents.update().where(incidents.c.number == incident)
            db.execute(mine.values(alert=dict(state)))

    def prune(self, token: int, before: datetime) -> int:
        """Forget observations older than a moment; return how many."""
        with self._own(token) as db:
            old = observations.delete().where(observations.c.recorded_at < before)
            return db.execute(old).rowcount

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
            return _inserted(db.execute(orders.insert().values(**row, body=dict(body))))

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
        return tuple(
            Ordered(r.number, r.at, r.by, OrderKind(r.kind), r.subject, r.reason, dict(r.body))
            for r in rows
        )

    # -- reading -----------------------------------------------------------------------------

    def snapshot(self, now: datetime, clusters: tuple[Cluster, ...]) -> Fleet:
        """Return everything `reconcile` looks at."""
        with self.database.read() as db:
            return _fleet(db, now, clusters)

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
        return [_event(row) for row in reversed(rows)]

    def jobs(self) -> tuple[Job, ...]:
        """Return every job."""
        with self.database.read() as db:
            return tuple(_things(db, "Job").values())

    def attempts(self, job: str | None = None) -> tuple[Attempt, ...]:
        """Return every attempt, of one job or of all."""
        with self.database.read() as db:
            found: list[Attempt] = list(_things(db, "Attempt").values())
        wanted = [one for one in found if job is None or one.job == job]
        return tuple(sorted(wanted, key=lambda one: (one.job, one.number)))

    def grants(self, job: str, attempt: int) -> tuple[SeatGrant, ...]:
        """Return every grant that was issued to an attempt."""
        mine = sa.and_(grants.c.job == job, grants.c.attempt == attempt)
        with self.database.read() as db:
            rows = db.execute(sa.select(grants).where(mine).order_by(grants.c.number)).all()
        return tuple(_decode("SeatGrant", row.body) for row in rows)

    def incidents(self, *, open_only: bool) -> tuple[Incident, ...]:
        """Return incidents by number."""
        with self.database.read() as db:
            return _incidents(db, open_only=open_only)

    def settlements(self, limit: int = 500) -> tuple[Settlement, ...]:
        """Return the newest intents with their outcomes, oldest first."""
        newest = sa.select(intents).order_by(intents.c.number.desc()).limit(limit)
        with self.database.read() as db:
            rows = db.execute(newest).all()
        return tuple(
            Settlement(_intent(row), row.tries, row.ok, row.text or "", row.settled_at)
            for row in reversed(rows)
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


# --- rows ---------------------------------------------------------------------------------------


def _lease_row(db: Connection, *, lock: bool = True) -> Any:
    wanted = sa.select(lease).where(lease.c.name == NAME)
    return db.execute(wanted.with_for_update() if lock else wanted).first()


def _first_lease(db: Connection, holder: str, expires_at: datetime) -> int | None:
    row = {"name": NAME, "holder": holder, "token": 1, "expires_at": expires_at}
    try:
        with db.begin_nested():
            db.execute(lease.insert().values(row))
    except IntegrityError:  # somebody else was first, just now
        return None
    return 1


def _set_lease(db: Connection, **values: Any) -> None:
    db.execute(lease.update().where(lease.c.name == NAME).values(values))


def _things(db: Connection, kind: str) -> dict[str, Any]:
    wanted = sa.select(documents).where(documents.c.kind == kind).order_by(documents.c.key)
    return {row.key: _decode(row.kind, row.body) for row in db.execute(wanted)}


def _beliefs(db: Connection) -> Beliefs:
    nodes: dict[str, NodeBelief] = _things(db, "NodeBelief")
    clusters: dict[str, ClusterBelief] = _things(db, "ClusterBelief")
    registers: dict[str, RegisterBelief] = _things(db, "RegisterBelief")
    book: OrderBook = next(iter(_things(db, "OrderBook").values()), OrderBook())
    return Beliefs(
        {one.node: one for one in nodes.values()},
        {one.cluster: one for one in clusters.values()},
        {one.job: one for one in registers.values()},
        book.orders,
        book.answered,
    )


def _fleet(db: Connection, now: datetime, clusters: tuple[Cluster, ...]) -> Fleet:
    nodes: dict[str, Node] = _things(db, "Node")
    jobs: dict[str, Job] = _things(db, "Job")
    last = {job.name: job.attempts for job in jobs.values()}
    attempts: list[Attempt] = list(_things(db, "Attempt").values())
    kept = [
        one
        for one in attempts
        if one.state is not AttemptState.CLOSED or last.get(one.job) == one.number
    ]
    waiting = sa.select(intents).where(intents.c.settled_at.is_(None)).order_by(intents.c.number)
    spent = sa.select(used).where(used.c.at > now - BUDGETS).order_by(used.c.number)
    return Fleet(
        now=now,
        clusters=clusters,
        nodes={one.name: one for one in nodes.values()},
        jobs={one.name: one for one in jobs.values()},
        attempts=tuple(sorted(kept, key=lambda one: (one.job, one.number))),
        beliefs=_beliefs(db),
        intents=tuple(_intent(row) for row in db.execute(waiting)),
        incidents=_incidents(db, open_only=True),
        used=tuple(Used(row.kind, row.subject, row.at) for row in db.execute(spent)),
    )


def _incidents(db: Connection, *, open_only: bool) -> tuple[Incident, ...]:
    wanted = sa.select(incidents).order_by(incidents.c.number)
    if open_only:
        wanted = wanted.where(incidents.c.closed_at.is_(None))
    return tuple(
        Incident(Page(r.page), r.subject, r.opened_at, r.reason, r.closed_at, int(r.number))
        for r in db.execute(wanted)
    )


def _intent(row: Any) -> Intent:
    decision = _decode(row.kind, row.body)
    return Intent(row.key, decision, row.at, row.deadline, int(row.token))


def _event(row: Any) -> Event:
    return Event(
        row.at,
        row.kind,
        tuple(row.subjects),
        row.text,
        row.actor,
        dict(row.data),
        row.recorded_at,
        int(row.number),
    )


def _store(db: Connection, changed: Sequence[Change]) -> None:
    for one in changed:
        mine = sa.and_(documents.c.kind == one.kind, documents.c.key == one.key)
        if one.thing is None:
            db.execute(documents.delete().where(mine))
            continue
        body = codec.encode(one.thing)
        if not db.execute(documents.update().where(mine).values(body=body)).rowcount:
            db.execute(documents.insert().values(kind=one.kind, key=one.key, body=body))


def _store_rest(db: Connection, before: Fleet, after: Fleet, now: datetime) -> None:
    """Store incidents that were opened or closed, and what was used."""
    were = {(one.page, one.subject) for one in before.incidents}
    are = {(one.page, one.subject) for one in after.incidents}
    for one in after.incidents:
        if (one.page, one.subject) not in were:
            row = {"page": one.page.value, "subject": one.subject, "opened_at": one.opened_at}
            db.execute(incidents.insert().values(**row, reason=one.reason))
    for page, subject in were - are:
        mine = sa.and_(
            incidents.c.page == page.value,
            incidents.c.subject == subject,
            incidents.c.closed_at.is_(None),
        )
        db.execute(incidents.update().where(mine).values(closed_at=now))
    for spent in after.used[len(before.used) :]:
        _use(db, spent)


def _use(db: Connection, spent: Used | None) -> None:
    if spent is not None:
        db.execute(used.insert().values(kind=spent.kind, subject=spent.subject, at=spent.at))


def _keep_grant(db: Connection, decision: IssueGrant, after: Fleet) -> None:
    for one in after.attempts:
        if (one.job, one.number) == (decision.job, decision.attempt) and one.grant is not None:
            body = codec.encode(one.grant)
            db.execute(grants.insert().values(job=one.job, attempt=one.number, body=body))


def _settle_order(db: Connection, decision: LedgerOnly) -> None:
    if isinstance(decision, SettleOrder):
        mine = sa.and_(orders.c.number == decision.order, orders.c.done.is_(None))
        db.execute(orders.update().where(mine).values(done=decision.done, answer=decision.reason))


def _append(db: Connection, seen: Sequence[Observation], now: datetime) -> None:
    rows = [
        {"at": o.at, "recorded_at": now, "kind": type(o).__name__, "body": codec.encode(o)}
        for o in seen
    ]
    if rows:
        db.execute(observations.insert(), rows)


def _tell(db: Connection, event: Event, now: datetime, note: str | None = None) -> None:
    if note is not None:
        known = sa.select(sa.func.count()).select_from(events).where(events.c.note == note)
        if db.scalar(known):
            return
    done = db.execute(
        events.insert().values(
            at=event.at,
            recorded_at=now,
            kind=event.kind,
            text=event.text,
            actor=event.actor,
            subjects=list(event.subjects),
            data=dict(event.data),
            note=note,
        )
    )
    number = _inserted(done)
    rows = [{"event": number, "subject": one} for one in dict.fromkeys(event.subjects)]
    if rows:
        db.execute(event_subjects.insert(), rows)


def _inserted(done: sa.CursorResult[Any]) -> int:
    """Return the number that the database gave to the row just inserted."""
    row = done.inserted_primary_key
    if row is None:
        raise PermanentError("the database gave no number to a new row")
    return int(row[0])
