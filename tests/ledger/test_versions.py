from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from orchestrator.errors import TransientError, UserError
from orchestrator.ledger import open_ledger
from orchestrator.ledger.schema import upgrade
from orchestrator.ledger.tables import metadata


def make(path: Path) -> None:
    open_ledger(f"sqlite:///{path}").close()


def test_a_newer_ledger_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    make(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    for act in (open_ledger, upgrade):
        with pytest.raises(UserError, match="newer than this version"):
            act(f"sqlite:///{path}")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_file_that_is_no_ledger_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("dear diary, " * 100)
    with pytest.raises(UserError, match="not a ledger"):
        open_ledger(f"sqlite:///{path}")
    assert path.read_text().startswith("dear diary")


def test_the_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    make(path)
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_upgrading_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert upgrade(f"sqlite:///{path}") == upgrade(f"sqlite:///{path}")


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite+what:///x"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        open_ledger(url)


def test_a_database_that_does_not_serve_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises((TransientError, UserError)):
        open_ledger(f"postgresql+psycopg://nobody@/none?host={tmp_path}")


WRITER = """
import sys
from datetime import UTC, datetime, timedelta
from orchestrator.core.decisions import Enlist, SetCordon
from orchestrator.core.nodes import *
from orchestrator.core.observations import MachineSeen, Power
from orchestrator.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
now = datetime.now(UTC)
token = ledger.acquire("w", timedelta(hours=1), now)
seen = MachineSeen(NodeName("n"), "c", Machine(MachineId("m")), Power.RUNNING, "b")
ledger.apply(token, Enlist(ClusterName("c"), "p", seen, "new"), now)
print("ready", flush=True)
for number in range(100_000):
    cordon = Cordon("operator:w", str(number), now)
    ledger.apply(token, SetCordon(NodeName("n"), cordon, str(number)), now)
    if number == 5:
        print("going", flush=True)
"""


def test_a_writer_killed_in_the_middle_leaves_state_and_story_agreeing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    open_ledger(url).close()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert [writer.stdout.readline().strip() for _ in range(2)] == ["ready", "going"]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    ledger = open_ledger(url)
    (node,) = ledger.snapshot(datetime.now(UTC), ()).nodes.values()
    last = [one for one in ledger.story("n", limit=10) if one.kind == "SetCordon"][-1]
    assert node.cordon is not None
    assert last.text.endswith(f": {node.cordon.reason}")
    ledger.close()
