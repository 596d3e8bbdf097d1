"""The ledger: what was seen, believed, meant and done."""

from __future__ import annotations

from pathlib import Path

from orchestrator.ledger.api import Event, Ledger, StaleTokenError

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
    from orchestrator.ledger.database import Database
    from orchestrator.ledger.schema import prepare
    from orchestrator.ledger.sql import SqlLedger

    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    prepare(url)
    return SqlLedger(Database(url))
