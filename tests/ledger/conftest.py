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


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: str = request.getfixturevalue("postgres")
    name = f"ledger_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = open_ledger(url)
    yield opened
    opened.close()
