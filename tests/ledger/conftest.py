"""Every ledger under one suite: memory, SQLite, and PostgreSQL where its programs are found."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.ledger import Ledger, open_ledger
from orchestrator.ledger.tables import metadata

USER = "postgres"


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    path = shutil.which("postgres")
    return Path(path).resolve().parent if path else None


def _as_owner(argv: list[str]) -> None:
    """Run a server program; PostgreSQL refuses to run as root, so root becomes its user."""
    user: dict[str, Any] = {"user": USER, "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd="/", **user)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Start a throw-away PostgreSQL on a Unix socket, or skip with the reason."""
    given = os.environ.get("HOLDFAST_TEST_POSTGRES")
    if given:
        yield given
        return
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL programs on this machine (apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="hf-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        data = ["-D", str(folder / "data")]
        encoding = ["-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-U", USER, "--no-sync"]
        _as_owner([str(programs / "initdb"), *data, *encoding])
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        log = ["-l", str(folder / "log"), "-w", "-o", options]
        _as_owner([str(programs / "pg_ctl"), *data, *log, "start"])
    except (subprocess.SubprocessError, LookupError, PermissionError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"PostgreSQL does not start here: {error}")
    try:
        yield f"postgresql+psycopg://{USER}@/postgres?host={folder}"
    finally:
        _as_owner([str(programs / "pg_ctl"), *data, "-m", "immediate", "stop"])
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a fresh ledger once: copies of it are quicker than migrations."""
    path = tmp_path_factory.mktemp("ledger") / "blank.db"
    open_ledger(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def shared_database(postgres: str) -> Iterator[str]:
    """Make a fresh ledger on the server once; each test empties it, which is quick."""
    name = f"ledger_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = sa.make_url(postgres).set(database=name).render_as_string(hide_password=False)
    open_ledger(url).close()
    yield url
    with engine.connect() as connection:  # the server may be somebody's own
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def sqlite_url(blank: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(blank, tmp_path / 'ledger.db')}"


@pytest.fixture
def postgres_url(shared_database: str) -> str:
    engine = sa.create_engine(shared_database)
    with engine.begin() as connection:
        names = ", ".join(metadata.tables)
        connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY"))
    engine.dispose()
    return shared_database


@pytest.fixture(params=["sqlite", "postgres"])
def stored_url(request: pytest.FixtureRequest) -> str:
    """A ledger of the kinds that other processes can open."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = open_ledger(url)
    yield opened
    opened.close()
