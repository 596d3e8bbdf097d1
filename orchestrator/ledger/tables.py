"""The tables. State is one JSON document per thing, by kind and key; the rest is append-only.

Created and changed only by the migrations in `migrations/`; a test compares them with this file.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
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


class Words(TypeDecorator[str]):
    """Text from anybody: what no database stores is replaced, what is too long is cut.

    A node may write NUL (PostgreSQL refuses it) or half a character (none encodes it) into a note;
    one such note must not stop the transaction that records what everybody else said.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length_max: int = 20_000) -> None:
        """Say how many characters are kept."""
        super().__init__()
        self.length_max = length_max

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Write, and compare with what was written."""
        return None if value is None else self.kept(value)

    def kept(self, value: str) -> str:
        """Return what is kept of a text."""
        kept = value[: self.length_max].replace("\0", "\N{REPLACEMENT CHARACTER}")
        return kept.encode("utf-8", "replace").decode("utf-8")


class Plain(TypeDecorator[Any]):
    """Plain JSON types as text in ASCII.

    Not the databases' own JSON: PostgreSQL's refuses NaN, which a diverged loss is, and NUL.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Read."""
        return None if value is None else json.loads(value)


def _number() -> Column[int]:
    return Column("number", Number, primary_key=True, autoincrement=True)


lease = Table(
    "lease",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", Words, nullable=False),
    Column("token", Number, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

#: node, job, attempt, belief of a node, cluster or register: one document each.
documents = Table(
    "documents",
    metadata,
    Column("kind", String(40), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("version", Integer, nullable=False),  # core.beliefs.VERSION of who wrote it
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
    Column("kind", Words(60), nullable=False),
    Column("text", Words, nullable=False),
    Column("actor", Words(200), nullable=False),
    Column("subjects", Plain, nullable=False),
    Column("data", Plain, nullable=False),
    Column("note", String(64), unique=True),  # digest of what makes a note the same
)

event_subjects = Table(
    "event_subjects",
    metadata,
    Column("event", Number, ForeignKey("events.number"), primary_key=True),
    Column("subject", Words(250), primary_key=True),
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
    Column("text", Words),
    Column("data", Plain),
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
    Column("subject", Words(250), nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("reason", Words, nullable=False),
    Column("closed_at", Moment, index=True),
    Column("alert", Plain),
)

orders = Table(
    "orders",
    metadata,
    _number(),
    Column("at", Moment, nullable=False),
    Column("by", Words(200), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("subject", Words(250), nullable=False),
    Column("reason", Words, nullable=False),
    Column("body", Plain, nullable=False),
    Column("done", Boolean, index=True),
    Column("answer", Words),
)

used = Table(
    "used",
    metadata,
    _number(),
    Column("kind", String(40), nullable=False),
    Column("subject", Words(250), nullable=False),
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
