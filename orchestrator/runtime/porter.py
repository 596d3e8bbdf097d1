"""The porter: starts guards inside the allocation that a scheduler gave us, and nothing else.

A scheduler ends whatever a job's step started when that step ends. Agents outlive the command that
starts them, so they are started by this process, which lives as long as the allocation:

    python -m orchestrator.runtime.porter --home DIR

It listens on a socket in the node's private folder (mode 0600: only its own user may ask) and
starts what `launch` asks for. If the allocation ends, the scheduler kills
it with all guards and ranks.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.errors import TransientError

VARIABLE = "HOLDFAST_PORTER"  #: tells `launch` whom to ask
REQUEST_MAX = 1_000_000  #: bytes
LIMIT = 10.0  #: seconds for one request


def door(home: Path) -> Path:
    """Return the socket of a node's porter."""
    return home / "porter"


def ask(path: Path, argv: Sequence[str], env: dict[str, str], cwd: Path, log: Path) -> int:
    """Let the porter start a process in a session of its own; return its pid.

    Raises `TransientError` if no porter answers; one that is just starting is waited for.
    """
    end = time.monotonic() + LIMIT
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    body = {"argv": list(argv), "env": env, "cwd": str(cwd), "log": str(log)}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT)
            connection.connect(str(path))
            connection.sendall(json.dumps(body).encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            said = json.loads(connection.makefile("rb").read(REQUEST_MAX))
            return int(said["pid"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TransientError(f"no porter in this allocation: {error}") from error


class Porter:
    """One life of a porter."""

    def __init__(self, home: Path) -> None:
        """Bind the socket; a leftover of an earlier porter is replaced."""
        home.mkdir(parents=True, mode=0o700, exist_ok=True)
        path = door(home)
        with suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(before)
        self._listener.listen(16)
        self._children: list[subprocess.Popen[bytes]] = []

    def serve(self) -> None:
        """Answer for ever; children that ended are reaped."""
        self._listener.settimeout(1.0)
        while True:
            self._children = [child for child in self._children if child.poll() is None]
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection, suppress(OSError):
                connection.settimeout(LIMIT)
                connection.sendall(json.dumps(self._answer(connection)).encode())

    def _answer(self, connection: socket.socket) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\n") and len(data) < REQUEST_MAX:
            chunk = connection.recv(65_536)
            if not chunk:
                break
            data += chunk
        try:
            return {"pid": self._start(json.loads(data))}
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {"error": str(error)}

    def _start(self, body: dict[str, Any]) -> int:
        with Path(body["log"]).open("ab") as log:
            child = subprocess.Popen(
                body["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=body["cwd"],
                env=body["env"],
                start_new_session=True,
            )
        self._children.append(child)
        return child.pid


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the allocation ends."""
    parser = argparse.ArgumentParser(prog="orchestrator.runtime.porter")
    parser.add_argument("--home", required=True, type=Path)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Porter(Path(os.path.realpath(parser.parse_args(argv).home))).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
