"""Versions of the ledger's schema.

A fresh one is made, an older one upgraded on demand, a newer one refused untouched.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from orchestrator.errors import UserError
from orchestrator.ledger.database import Database, parse


def upgrade(url: str) -> str:
    """Bring a ledger to this version's schema; returns the revision. Refuses a newer one."""
    if _present(url) is not None:
        _refuse_newer(url)
    database = Database(url)
    try:
        with database.write() as connection:  # two processes may both find it fresh: one waits
            config = _config(connection)
            command.upgrade(config, "head")
    finally:
        database.close()
    return _head()


def prepare(url: str) -> None:
    """Make a fresh ledger ready; raise `UserError` for one that is older or newer than we are."""
    present = _present(url)
    if present is None:
        upgrade(url)
    elif present != _head():
        _refuse_newer(url)
        raise UserError(
            f"the ledger has schema {present}, this version needs {_head()}: "
            "stop the daemon, back the ledger up, run `holdfast db upgrade`"
        )


def _refuse_newer(url: str) -> None:
    present = _present(url)
    known = {one.revision for one in _scripts().walk_revisions()}
    if present is not None and present not in known:
        raise UserError(
            f"the ledger has schema {present}, which is newer than this version of Holdfast "
            f"({_head()}); it was left untouched. Upgrade Holdfast, or use another ledger"
        )


def _present(url: str) -> str | None:
    """Return the schema's revision without writing anything; None for a fresh database."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _present_in_file(parsed)
    database = Database(url)
    try:
        with database.read() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        database.close()


def _present_in_file(url: sa.URL) -> str | None:
    path = Path(url.database or "")
    if not path.exists() or path.stat().st_size == 0:
        return None
    reading = sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    try:
        with reading.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except (CommandError, sa.exc.DatabaseError) as error:
        raise UserError(f"{path} is not a ledger of Holdfast: {error}") from error
    finally:
        reading.dispose()


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent / "migrations"))


def _head() -> str:
    head = _scripts().get_current_head()
    assert head is not None
    return head
