"""Rows of the ledger's tables <-> objects of the core, inside a transaction that somebody began.

Used by `sql.py` alone. `Shared` makes equal rows equal objects: a snapshot shares every part that
did not change since the one before, and reads again only what did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from orchestrator.core import beliefs
from orchestrator.core.beliefs import Beliefs, ClusterBelief, LinkBelief, NodeBelief, RegisterBelief
from orchestrator.core.cohorts import CohortBelief
from orchestrator.core.decisions import (
    Incident,
    Intent,
    IssueGrant,
    LedgerOnly,
    Repair,
    Settled,
    SettleOrder,
)
from orchestrator.core.detectors import Detector
from orchestrator.core.fleet import Cluster, Fleet, Used
from orchestrator.core.jobs import Attempt, AttemptState, Job
from orchestrator.core.nodes import Node
from orchestrator.core.observations import Observation, Ordered, OrderKind
from orchestrator.core.pages import Page
from orchestrator.errors import PermanentError
from orchestrator.ledger import codec
from orchestrator.ledger.api import BUDGETS, LATELY, Event, Settlement
from orchestrator.ledger.changes import Change, OrderBook
from orchestrator.ledger.tables import (
    Words,
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

Connection = sa.Connection
Things = Mapping[str, dict[str, Any]]


@dataclass(slots=True)
class Shared:
    """The documents as they were read last: an unchanged row is the same object again."""

    _known: dict[tuple[str, str], tuple[str, Any]] = field(default_factory=dict)

    def read(self, db: Connection, *kinds: str) -> Things:
        """Return the documents of these kinds, by kind and key, sorted by key."""
        wanted = sa.select(documents.c.kind, documents.c.key, documents.c.body)
        wanted = wanted.where(documents.c.kind.in_(kinds)).order_by(documents.c.key)
        things: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
        for kind, key, body in db.execute(wanted):
            things[kind][key] = self._thing(kind, key, body)
        return things

    def _thing(self, kind: str, key: str, body: str) -> Any:
        known = self._known.get((kind, key))
        if known is not None and known[0] == body:
            return known[1]
        thing = codec.decode(kind, body)
        self._known[kind, key] = (body, thing)
        return thing


def read_lease(db: Connection, *, lock: bool = True) -> Any:
    """Return the lease's row; locked until the transaction ends, where rows can be."""
    wanted = sa.select(lease).where(lease.c.name == NAME)
    return db.execute(wanted.with_for_update() if lock else wanted).first()


def first_lease(db: Connection, holder: str, expires_at: datetime) -> int | None:
    """Make the lease; None if somebody else just did."""
    row = {"name": NAME, "holder": holder, "token": 1, "expires_at": expires_at}
    try:
        with db.begin_nested():
            db.execute(lease.insert().values(row))
    except IntegrityError:  # somebody else was first, just now
        return None
    return 1


def set_lease(db: Connection, **values: Any) -> None:
    """Change the lease."""
    db.execute(lease.update().where(lease.c.name == NAME).values(values))


BELIEFS = (
    "NodeBelief",
    "ClusterBelief",
    "RegisterBelief",
    "CohortBelief",
    "Detector",
    "LinkBelief",
    "OrderBook",
)


def read_beliefs(db: Connection, shared: Shared) -> Beliefs:
    """Return the beliefs."""
    return _beliefs(shared.read(db, *BELIEFS))


def _beliefs(things: Things) -> Beliefs:
    nodes: dict[str, NodeBelief] = things["NodeBelief"]
    clusters: dict[str, ClusterBelief] = things["ClusterBelief"]
    registers: dict[str, RegisterBelief] = things["RegisterBelief"]
    cohorts: dict[str, CohortBelief] = things["CohortBelief"]
    detectors: dict[str, Detector] = things["Detector"]
    links: dict[str, LinkBelief] = things["LinkBelief"]
    book: OrderBook = next(iter(things["OrderBook"].values()), OrderBook())
    return Beliefs(
        {one.node: one for one in nodes.values()},
        {one.cluster: one for one in clusters.values()},
        {one.job: one for one in registers.values()},
        book.orders,
        book.answered,
        {one.key: one for one in cohorts.values()},
        {one.name: one for one in detectors.values()},
        {one.inquiry.name: one for one in links.values()},
    )


def read_fleet(
    db: Connection, shared: Shared, now: datetime, clusters: tuple[Cluster, ...]
) -> Fleet:
    """Return everything that decisions are made on."""
    things = shared.read(db, "Node", "Job", "Attempt", *BELIEFS)
    nodes: dict[str, Node] = things["Node"]
    jobs: dict[str, Job] = things["Job"]
    waiting = sa.select(intents).where(intents.c.settled_at.is_(None)).order_by(intents.c.number)
    spent = sa.select(used).where(used.c.at > now - BUDGETS).order_by(used.c.number)
    return Fleet(
        now=now,
        clusters=clusters,
        nodes={one.name: one for one in nodes.values()},
        jobs={one.name: one for one in jobs.values()},
        attempts=_present(things["Attempt"].values(), jobs.values()),
        beliefs=_beliefs(things),
        intents=tuple(read_intent(row) for row in db.execute(waiting)),
        incidents=read_incidents(db, open_only=True),
        used=tuple(Used(row.kind, row.subject, row.at) for row in db.execute(spent)),
        settled=_settled(db, now),
    )


def _settled(db: Connection, now: datetime) -> tuple[Settled, ...]:
    """Return the newest outcome of each key: of the last minute, of repairs within a day."""
    lately = intents.c.settled_at > now - LATELY
    repair = sa.and_(intents.c.kind == Repair.__name__, intents.c.settled_at > now - BUDGETS)
    wanted = sa.select(intents).where(sa.or_(lately, repair)).order_by(intents.c.number)
    newest = {row.key: row for row in db.execute(wanted)}
    return tuple(_outcome(row) for row in newest.values())


def _outcome(row: Any) -> Settled:
    passing = bool((row.data or {}).get("passing"))
    return Settled(row.key, row.settled_at, bool(row.ok), row.text or "", passing)


def _present(attempts: Iterable[Attempt], jobs: Iterable[Job]) -> tuple[Attempt, ...]:
    """Leave out closed attempts that are not their job's last."""
    last = {job.name: job.attempts for job in jobs}
    closed = AttemptState.CLOSED
    kept = (one for one in attempts if one.state is not closed or last.get(one.job) == one.number)
    return tuple(sorted(kept, key=lambda one: (one.job, one.number)))


def read_incidents(db: Connection, *, open_only: bool) -> tuple[Incident, ...]:
    """Return incidents by number."""
    wanted = sa.select(incidents).order_by(incidents.c.number)
    if open_only:
        wanted = wanted.where(incidents.c.closed_at.is_(None))
    return tuple(
        Incident(Page(r.page), r.subject, r.opened_at, r.reason, r.closed_at, int(r.number))
        for r in db.execute(wanted)
    )


def read_intent(row: Any) -> Intent:
    """Return an intent."""
    decision = codec.decode(row.kind, row.body)
    return Intent(row.key, decision, row.at, row.deadline, int(row.token))


def read_event(row: Any) -> Event:
    """Return an event."""
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


def store(db: Connection, changed: Sequence[Change]) -> None:
    """Write or remove the documents that changed."""
    for one in changed:
        mine = sa.and_(documents.c.kind == one.kind, documents.c.key == one.key)
        if one.thing is None:
            db.execute(documents.delete().where(mine))
            continue
        body = codec.encode(one.thing)
        row = {"kind": one.kind, "key": one.key, "body": body, "version": beliefs.VERSION}
        if not db.execute(
            documents.update().where(mine).values(body=body, version=beliefs.VERSION)
        ).rowcount:
            db.execute(documents.insert().values(row))


def store_rest(db: Connection, before: Fleet, after: Fleet, now: datetime) -> None:
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
        use(db, spent)


def use(db: Connection, spent: Used | None) -> None:
    """Count something against its budget."""
    if spent is not None:
        db.execute(used.insert().values(kind=spent.kind, subject=spent.subject, at=spent.at))


def keep_grant(db: Connection, decision: IssueGrant, after: Fleet) -> None:
    """Keep a grant in the history of its attempt."""
    for one in after.attempts:
        if (one.job, one.number) == (decision.job, decision.attempt) and one.grant is not None:
            body = codec.encode(one.grant)
            db.execute(grants.insert().values(job=one.job, attempt=one.number, body=body))


def settle_order(db: Connection, decision: LedgerOnly) -> None:
    """Answer an order, once."""
    if isinstance(decision, SettleOrder):
        mine = sa.and_(orders.c.number == decision.order, orders.c.done.is_(None))
        db.execute(orders.update().where(mine).values(done=decision.done, answer=decision.reason))


def append(db: Connection, kept: Sequence[tuple[Observation, str]], now: datetime) -> None:
    """Append observations with their JSON."""
    rows = [
        {"at": one.at, "recorded_at": now, "kind": type(one).__name__, "body": body}
        for one, body in kept
    ]
    if rows:
        db.execute(observations.insert(), rows)


def tell(db: Connection, event: Event, now: datetime, note: str | None = None) -> None:
    """Append an event; one that carries a note's key only if none with that key was told."""
    if note is not None:
        known = sa.select(sa.func.count()).select_from(events).where(events.c.note == note)
        if db.scalar(known):
            return
    row = {
        "at": event.at,
        "recorded_at": now,
        "kind": event.kind,
        "text": event.text,
        "actor": event.actor,
        "subjects": list(event.subjects),
        "data": dict(event.data),
        "note": note,
    }
    number = inserted(db.execute(events.insert().values(row)))
    subjects = [{"event": number, "subject": one} for one in _distinct(event.subjects)]
    if subjects:
        db.execute(event_subjects.insert(), subjects)


def _distinct(subjects: Sequence[str]) -> tuple[str, ...]:
    """Leave out subjects that are the same once they are cut to what the column keeps."""
    kind = event_subjects.c.subject.type
    assert isinstance(kind, Words)
    return tuple(dict.fromkeys(kind.kept(one) for one in subjects))


def read_order(row: Any) -> Ordered:
    """Return an order."""
    kind, body = OrderKind(row.kind), dict(row.body)
    return Ordered(int(row.number), row.at, row.by, kind, row.subject, row.reason, body)


def read_settlement(row: Any) -> Settlement:
    """Return an intent and what came of it."""
    data = dict(row.data or {})
    return Settlement(read_intent(row), row.tries, row.ok, row.text or "", row.settled_at, data)


def inserted(done: sa.CursorResult[Any]) -> int:
    """Return the number that the database gave to the row just inserted."""
    row = done.inserted_primary_key
    if row is None:
        raise PermanentError("the database gave no number to a new row")
    return int(row[0])
