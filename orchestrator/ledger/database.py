"""A database as the ledger uses it: connections, transactions, and errors in our own words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.errors import HoldfastError, PermanentError, TransientError, UserError

BUSY_MS = 10_000  #: how long a write waits for another process's
CONNECT_S = 10
NOT_NOW, REFUSED = "the ledger's database does not serve now", "the ledger's database refused"
#: SQLite's primary result codes that may be another on the next try (sqlite.org/rescode.html);
#: a full disk among them: somebody makes room.
SQLITE_LATER = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PROTOCOL,
}


class Database:
    """An engine with two ways in: `read`, one consistent moment; `write`, one transaction."""

    def __init__(self, url: str) -> None:
        """Prepare connections; none is opened yet. Raises `UserError` for a URL that is none."""
        self._engine = _engine(url)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Read at one moment."""
        with _translated(), self._engine.connect() as plain:
            if plain.dialect.name == "postgresql":
                plain = plain.execution_options(isolation_level="REPEATABLE READ")
            with plain.begin():
                yield plain

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Write everything or nothing."""
        with _translated(), self._engine.connect() as plain:
            db = plain.execution_options(holdfast_begin="BEGIN IMMEDIATE")
            with db.begin():
                yield db

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()


def parse(url: str) -> sa.URL:
    """Read a URL; raises `UserError` if it is not one of a database that we know."""
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(f"not the URL of a ledger: {error}") from error
    if backend not in ("sqlite", "postgresql"):
        raise UserError(f"a ledger is kept in sqlite or postgresql, not in {backend}")
    return parsed


def _engine(url: str) -> sa.Engine:
    parsed = parse(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            engine = sa.create_engine(
                parsed, connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000}
            )
            event.listen(engine, "connect", _sqlite_connected)
            event.listen(engine, "begin", _sqlite_begins)
            return engine
        options = {"connect_timeout": CONNECT_S, "options": "-c timezone=UTC"}
        return sa.create_engine(parsed, connect_args=options, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(f"not the URL of a ledger: {error}") from error
    except ModuleNotFoundError as error:
        raise UserError(
            f"this ledger needs {error.name}: pip install 'holdfast[postgres]'"
        ) from error


def _sqlite_connected(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, see _sqlite_begins
    for pragma in (
        f"busy_timeout={BUSY_MS}",  # first: the switch to WAL may find somebody writing
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begins(connection: sa.Connection) -> None:
    # BEGIN IMMEDIATE takes the write lock at once: a transaction that reads first and writes
    # later could find that somebody else wrote in between, and would fail instead of waiting.
    begin = connection.get_execution_options().get("holdfast_begin", "BEGIN")
    connection.exec_driver_sql(begin)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise _ours(error.orig or error) from error
    except sqlite3.Error as error:  # from the pragmas of a new connection
        raise _ours(error) from error
    except PoolTimeoutError as error:
        raise TransientError(f"{NOT_NOW}: {error}") from error
    except SQLAlchemyError as error:
        raise PermanentError(f"{REFUSED}: {error}") from error


def _ours(error: BaseException) -> HoldfastError:
    """Say whether another try may help: never with the statement's data in the message."""
    text = str(error).strip()
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # primary code
        later = code in SQLITE_LATER
    else:
        names = {one.__name__ for one in type(error).__mro__}  # psycopg may not be installed
        later = bool(names & {"OperationalError", "InterfaceError"})
    return TransientError(f"{NOT_NOW}: {text}") if later else PermanentError(f"{REFUSED}: {text}")
