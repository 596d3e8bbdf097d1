"""Versions of the ledger's schema: a fresh one is made, an older one upgraded when a person asks.

A newer one is refused untouched, and so is a database of somebody else. Looking needs no alembic,
which takes a tenth of a second to import and is needed by those few who upgrade.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from orchestrator.core import beliefs
from orchestrator.errors import UserError
from orchestrator.ledger.database import Database, parse
from orchestrator.ledger.tables import documents

#: The revisions in `migrations/versions`, oldest first; a test compares them.
REVISIONS = ("0001",)
HEAD = REVISIONS[-1]


@dataclass(frozen=True, slots=True)
class Present:
    """What a database says of itself."""

    revision: str
    beliefs: int  #: highest `core.beliefs.VERSION` that wrote to it


def upgrade(url: str) -> str:
    """Bring a ledger to this version's schema; returns the revision. Refuses a newer one."""
    _refuse_newer(look(url))
    database = Database(url)
    try:
        with database.write() as connection:  # two processes may both find it fresh: one waits
            _migrate(connection)
    finally:
        database.close()
    return HEAD


def prepare(url: str) -> None:
    """Make a fresh ledger ready; raise `UserError` for one that is older or newer than we are."""
    present = look(url)
    if present is None:
        upgrade(url)
        return
    _refuse_newer(present)
    if present.revision != HEAD:
        raise UserError(
            f"the ledger has schema {present.revision}, this version needs {HEAD}: "
            "stop the daemon, back the ledger up, run `holdfast db upgrade`"
        )


def look(url: str) -> Present | None:
    """Return the versions in a database without writing anything; None for an empty one.

    Raises `UserError` for a file or database that is not a ledger.
    """
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        if not path.exists() or path.stat().st_size == 0:
            return None
        with _only_read(path) as connection:
            return _present(connection, str(path))
    database = Database(url)
    try:
        with database.read() as connection:
            return _present(connection, f"the database {parsed.database}")
    finally:
        database.close()


def _present(connection: sa.Connection, name: str) -> Present | None:
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        return None
    if not {"alembic_version", documents.name} <= tables:
        raise UserError(
            f"{name} is not a ledger of Holdfast: it holds other tables; left untouched"
        )
    revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    version = sa.select(sa.func.max(documents.c.version))
    known = revision in REVISIONS  # the columns of a newer schema are not ours to guess
    return Present(str(revision), (connection.scalar(version) or 0) if known else 0)


def _refuse_newer(present: Present | None) -> None:
    if present is None:
        return
    if present.revision not in REVISIONS:
        newer = f"schema {present.revision}, which is newer than this version of Holdfast ({HEAD})"
    elif present.beliefs > beliefs.VERSION:
        newer = (
            f"beliefs of version {present.beliefs}, which is newer than this version of Holdfast "
            f"({beliefs.VERSION})"
        )
    else:
        return
    raise UserError(
        f"the ledger has {newer}; it was left untouched. Upgrade Holdfast, or use another ledger"
    )


@contextmanager
def _only_read(path: Path) -> Iterator[sa.Connection]:
    source = f"file:{quote(str(path.resolve()))}?mode=ro"
    reading = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(source, uri=True))
    try:
        with reading.connect() as connection:
            yield connection
    except sa.exc.DatabaseError as error:
        raise UserError(f"{path} is not a ledger of Holdfast: {error.orig}") from error
    finally:
        reading.dispose()


def _migrate(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))  # ConfigParser's escape
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
