from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from orchestrator.errors import PermanentError, TransientError, UserError
from orchestrator.ledger import open_ledger, schema
from orchestrator.ledger.database import Database
from orchestrator.ledger.schema import upgrade
from orchestrator.ledger.sql import SqlLedger
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


def tell_it(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def test_beliefs_of_a_newer_version_are_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    make(path)
    tell_it(path, "INSERT INTO documents VALUES ('NodeBelief', 'n', 99, '{}')")
    before = path.read_bytes()
    for act in (open_ledger, upgrade):
        with pytest.raises(UserError, match="beliefs of version 99"):
            act(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_database_of_somebody_else_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "diary.db"
    tell_it(path, "CREATE TABLE diary (day TEXT)")
    before = path.read_bytes()
    for act in (open_ledger, upgrade):
        with pytest.raises(UserError, match="other tables"):
            act(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_an_older_ledger_waits_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "ledger.db")
    monkeypatch.setattr(schema, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(schema, "HEAD", "0002")
    with pytest.raises(UserError, match="holdfast db upgrade"):
        open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_the_revisions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    known = [one.revision for one in scripts.walk_revisions()]
    assert tuple(reversed(known)) == schema.REVISIONS


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "50% #1 ü"
    for _ in range(2):
        make(folder / "my ledger.db")
    assert (folder / "my ledger.db").is_file()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:////proc/x/l.db"])
def test_a_ledger_needs_a_place(url: str) -> None:
    with pytest.raises(UserError):
        open_ledger(url)


def test_a_ledger_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        open_ledger(f"sqlite:///{tmp_path}")


def test_what_may_pass_is_told_from_what_will_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    make(tmp_path / "ledger.db")
    ledger = SqlLedger(Database(url))
    tell_it(tmp_path / "ledger.db", "DROP TABLE lease")
    with pytest.raises(PermanentError, match="no such table: lease"):
        ledger.holder()
    ledger.close()
    gone = SqlLedger(Database("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    with pytest.raises(TransientError, match="does not serve now"):
        gone.holder()
    gone.close()
