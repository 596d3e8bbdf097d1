"""The porter: starts guards inside the allocation that a scheduler gave us, and nothing else.

A scheduler ends whatever a job's step started when that step ends. Agents outlive the command that
starts them, so they are started by this process, which lives as long as the allocation:

    python -m orchestrator.runtime.porter --home DIR

It listens on a socket in the node's private folder (mode 0600: only its own user may ask) and
starts what `launch` asks for. If the allocation ends, the scheduler kills it with all guards and
ranks. Ray kills its own workers only, so there the porter is *held*: its standard input is a pipe
from the actor that holds the node. When the pipe closes, or nothing has run here for a while, it
tells every guard to end, waits for them, and ends; a guard whose porter was killed ends as well.

    python -m orchestrator.runtime.porter --home DIR --held [--linger SECONDS] [--give NAME=VALUE]
    python -m orchestrator.runtime.porter --home DIR --ask knock|leave

Standard library only, Python 3.10.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import TransientError
from orchestrator.runtime.kernel import die_with

VARIABLE = "HOLDFAST_PORTER"  #: tells `launch` whom to ask
REQUEST_MAX = 1_000_000  #: bytes
LIMIT = 10.0  #: seconds for one request
LOOK_EVERY = 1.0  #: seconds between two looks for children that ended
LINGER = 60.0  #: seconds a held porter stays where nothing runs: an agent may be started again
LIVES = 3  #: exit code of `--ask leave` where agents run
END_LIMIT = 30.0  #: seconds that guards have to end everything


def door(home: Path) -> Path:
    """Return the socket of a node's porter."""
    return home / "porter"


def ask(path: Path, argv: Sequence[str], env: dict[str, str], cwd: Path, log: Path) -> int:
    """Let the porter start a process in a session of its own; return its pid.

    Raises `TransientError` if no porter answers; one that is just starting is waited for.
    """
    end = time.monotonic() + LIMIT
    while not _opens(path) and time.monotonic() < end:
        time.sleep(0.02)
    body = {"argv": list(argv), "env": env, "cwd": str(cwd), "log": str(log)}
    said = talk(path, body)
    try:
        return int(said["pid"])
    except (ValueError, KeyError, TypeError) as error:
        raise TransientError(f"no porter in this allocation: {said!r:.200}") from error


def _opens(path: Path) -> bool:
    """Say whether somebody listens behind a door; what a killed porter left is no door."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT)
            connection.connect(str(path))
    except OSError:
        return False
    return True


def talk(path: Path, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send a porter one request and return its answer; `TransientError` if there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT)
            connection.connect(str(path))
            connection.sendall(json.dumps(body).encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            said = json.loads(connection.makefile("rb").read(REQUEST_MAX))
    except (OSError, ValueError, RecursionError) as error:
        raise TransientError(f"no porter in this allocation: {error}") from error
    if not isinstance(said, dict):
        raise TransientError(f"no porter in this allocation: {said!r:.200}")
    return said


@dataclass(frozen=True)
class Held:
    """How a porter lives that somebody holds by its standard input."""

    linger: float = LINGER  #: seconds
    given: Mapping[str, str] = field(default_factory=dict)  #: environment that all it starts gets


class Porter:
    """One life of a porter."""

    def __init__(self, home: Path, held: Held | None = None) -> None:
        """Bind the socket; a leftover of an earlier porter is replaced."""
        home.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._door, self._held = door(home), held
        with suppress(FileNotFoundError):
            self._door.unlink()
        self._listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            self._listener.bind(str(self._door))
        finally:
            os.umask(before)
        self._inode = self._door.stat().st_ino
        self._listener.listen(16)
        self._listener.settimeout(0.0)
        self._children: list[subprocess.Popen[bytes]] = []
        self._busy_at = time.monotonic()
        self._leaving = False

    def serve(self) -> None:
        """Answer as long as the allocation lives; children that ended are reaped."""
        if self._held is not None:
            signal.signal(signal.SIGTERM, self._leave)
        while not self._over():
            watched = [self._listener, *([sys.stdin.buffer] if self._held is not None else [])]
            ready, _, _ = select.select(watched, [], [], LOOK_EVERY)
            if sys.stdin.buffer in ready and os.read(sys.stdin.fileno(), 4_096) == b"":
                self._leaving = True
            elif self._listener in ready:
                self._meet()
        self._end()

    def _over(self) -> bool:
        self._children = [child for child in self._children if child.poll() is None]
        if self._held is None:
            return False
        if self._children:
            self._busy_at = time.monotonic()
        return self._leaving or time.monotonic() - self._busy_at > self._held.linger

    def _leave(self, *_: object) -> None:
        self._leaving = True

    def _meet(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(LIMIT)
                connection.sendall(json.dumps(self._answer(connection)).encode())
        self._busy_at = time.monotonic()

    def _answer(self, connection: socket.socket) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\n") and len(data) < REQUEST_MAX:
            chunk = connection.recv(65_536)
            if not chunk:
                break
            data += chunk
        try:
            return self._reply(json.loads(data))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            return {"error": str(error)}

    def _reply(self, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict):
            return {"error": "no request"}
        match body.get("ask"):
            case None:
                return {"pid": self._start(body)}
            case "leave" if self._held is None:
                return {"error": "the allocation ends this porter, nobody else"}
            case "leave" if self._children:
                return {"error": f"{len(self._children)} agents run here"}
            case "leave":
                self._leaving = True
            case _:
                pass  # a knock: whoever is here is told below
        return {"pid": os.getpid(), "children": len(self._children), "held": self._held is not None}

    def _start(self, body: dict[str, Any]) -> int:
        us, held = os.getpid(), self._held
        with Path(body["log"]).open("ab") as log:
            child = subprocess.Popen(
                body["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=body["cwd"],
                env={**body["env"], **(held.given if held is not None else {})},
                start_new_session=True,
                # a porter that is killed can tell nobody: the kernel does
                preexec_fn=None if held is None else lambda: die_with(us, signal.SIGTERM),
            )
        self._children.append(child)
        return child.pid

    def _end(self) -> None:
        """Close the door, let every guard end what it guards, and wait for them."""
        with suppress(FileNotFoundError):
            if self._door.stat().st_ino == self._inode:  # not that of the next porter
                self._door.unlink()
        self._listener.close()
        for child in self._children:
            child.send_signal(signal.SIGTERM)
        end = time.monotonic() + END_LIMIT
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, end - time.monotonic()))


def _given(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"{word!r:.60} is not NAME=VALUE")
    return name, value


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the allocation ends, or ask the porter that does."""
    parser = argparse.ArgumentParser(prog="orchestrator.runtime.porter")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--held", action="store_true", help="end when standard input closes")
    parser.add_argument("--linger", type=float, default=LINGER, help="seconds, with --held")
    parser.add_argument("--give", type=_given, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--ask", choices=("knock", "leave"))
    asked = parser.parse_args(argv)
    home = Path(os.path.realpath(asked.home))
    if asked.ask is not None:
        return _ask(home, asked.ask)
    if not asked.held:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Porter(home, Held(asked.linger, dict(asked.give)) if asked.held else None).serve()
    return 0


def _ask(home: Path, what: str) -> int:
    try:
        said = talk(door(home), {"ask": what})
    except TransientError as error:
        print(json.dumps({"error": str(error)}))
        return error.exit_code
    print(json.dumps(said))
    return LIVES if what == "leave" and "error" in said else 0


if __name__ == "__main__":
    sys.exit(main())
