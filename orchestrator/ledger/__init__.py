"""The ledger: what was seen, believed, meant and done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.ledger.api import Event, Ledger, StaleTokenError

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["Event", "Ledger", "StaleTokenError", "open_ledger"]

MEMORY = "memory:"


def open_ledger(url: str) -> Ledger:
    """Open the ledger at a URL, making a fresh one where there is none.

    `sqlite:///PATH`, `postgresql+psycopg://...`, or `memory:` (forgotten with the process). Raises
    `UserError` for another URL, and for a ledger whose schema is not this version's.
    """
    if url == MEMORY:
        from orchestrator.ledger.memory import MemoryLedger

        return MemoryLedger()
    from orchestrator.ledger.database import Database, parse
    from orchestrator.ledger.schema import prepare
    from orchestrator.ledger.sql import SqlLedger

    _make_folder(parse(url))
    prepare(url)
    return SqlLedger(Database(url))


def _make_folder(url: URL) -> None:
    """Make the folder of a ledger that is a file; one that is kept nowhere is refused."""
    if url.get_backend_name() != "sqlite":
        return
    if not url.database or url.database == ":memory:":
        raise UserError("a ledger on SQLite needs a path: sqlite:////path/to/ledger.db")
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the ledger's folder {path.parent} cannot be made: {error}") from error
    if path.is_dir():
        raise UserError(f"the ledger {path} is a folder; name a file")
