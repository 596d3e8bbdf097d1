"""The tables. State is one JSON document per thing, by kind and key; the rest is append-only.

Created and changed only by the migrations in `migrations/`; a test compares them with this file.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts only INTEGER keys by itself


class Moment(TypeDecorator[datetime]):
    """A UTC moment as microseconds since the epoch: exact, ordered, the same in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Write; a moment without a zone is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a moment without a time zone: {value!r}")
        delta = value.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read."""
        if value is None:
            return None
        seconds, micros = divmod(int(value), 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def _number() -> Column[int]:
    return Column("number", Number, primary_key=True, autoincrement=True)


lease = Table(
    "lease",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("token", Number, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

#: node, job, attempt, belief of a node, cluster or register: one document each.
documents = Table(
    "documents",
    metadata,
    Column("kind", String(40), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("body", Text, nullable=False),
)

observations = Table(
    "observations",
    metadata,
    _number(),
    Column("at", Moment, nullable=False),
    Column("recorded_at", Moment, nullable=False, index=True),
    Column("kind", String(40), nullable=False),
    Column("body", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    _number(),
    Column("at", Moment, nullable=False, index=True),
    Column("recorded_at", Moment, nullable=False),
    Column("kind", String(60), nullable=False),
    Column("text", Text, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("subjects", JSON, nullable=False),
    Column("data", JSON, nullable=False),
    Column("note", String(300), unique=True),  # NODE/AGENT/NUMBER of an agent's note
)

event_subjects = Table(
    "event_subjects",
    metadata,
    Column("event", Number, ForeignKey("events.number"), primary_key=True),
    Column("subject", String(250), primary_key=True),
    Index("event_subjects_by_subject", "subject", "event"),
)

intents = Table(
    "intents",
    metadata,
    _number(),
    Column("key", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("deadline", Moment, nullable=False),
    Column("token", Number, nullable=False),
    Column("ok", Boolean),
    Column("text", Text),
    Column("data", JSON),
    Column("settled_at", Moment),
)
# At most one intent of a key is open: a second daemon, or a bug, runs into this.
Index(
    "intents_open",
    intents.c.key,
    unique=True,
    sqlite_where=text("settled_at IS NULL"),
    postgresql_where=text("settled_at IS NULL"),
)

incidents = Table(
    "incidents",
    metadata,
    _number(),
    Column("page", String(60), nullable=False),
    Column("subject", String(250), nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("closed_at", Moment, index=True),
    Column("alert", JSON),
)

orders = Table(
    "orders",
    metadata,
    _number(),
    Column("at", Moment, nullable=False),
    Column("by", String(200), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("subject", String(250), nullable=False),
    Column("reason", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Column("done", Boolean, index=True),
    Column("answer", Text),
)

used = Table(
    "used",
    metadata,
    _number(),
    Column("kind", String(40), nullable=False),
    Column("subject", String(250), nullable=False),
    Column("at", Moment, nullable=False, index=True),
)

grants = Table(
    "grants",
    metadata,
    _number(),
    Column("job", String(100), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Index("grants_by_attempt", "job", "attempt"),
)
