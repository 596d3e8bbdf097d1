"""The ledger's transaction of one sweep, against the same rows by bare sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from orchestrator.core.assess import assess
from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import NodeReached
from orchestrator.ledger import open_ledger

NODES = 640


def pairs(folder: Path) -> Iterator[tuple[str, Callable[[], object], str, Callable[[], object]]]:
    """Yield what is compared."""
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
    start = datetime(2026, 11, 1, tzinfo=UTC)
    token = ledger.acquire("bench", timedelta(days=1), start)
    assert token is not None
    ticks = count()

    def ours() -> None:
        now = start + timedelta(seconds=next(ticks))
        seen = [NodeReached(NodeName(f"n{n:04d}"), now, "boot") for n in range(NODES)]
        ledger.record(token, seen, now, assess)

    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute("CREATE TABLE seen (number INTEGER PRIMARY KEY, at REAL, body TEXT)")

    def peer() -> None:
        bare.execute("BEGIN IMMEDIATE")
        rows = [(float(n), '{"node": "n0001", "boot_id": "boot"}') for n in range(NODES)]
        bare.executemany("INSERT INTO seen (at, body) VALUES (?, ?)", rows)
        bare.execute("COMMIT")

    yield f"record and assess {NODES} observations", ours, f"sqlite3: {NODES} bare rows", peer
