"""Where things of a node lie on its disk, and how a file is written so that a kill does no harm.

A node has one folder, its *home*; each attempt has a folder inside it. Only paths, small atomic
files and the node's lock live here; nobody's rules do.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import PermanentError, TransientError

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}")  #: the temporary names of `write_atomically`


@dataclass(frozen=True)
class Place:
    """The paths of one attempt on one node; `run` is JOB.ATTEMPT."""

    home: Path
    run: str

    @property
    def folder(self) -> Path:
        """The attempt's own folder."""
        return self.home / "attempts" / self.run

    @property
    def site(self) -> Path:
        """The staged copy of the runtime: the only thing of ours on a rank's PYTHONPATH."""
        return self.home / "site"

    @property
    def machine(self) -> Path:
        """What a local machine says of itself (local provider only)."""
        return self.home / "machine.json"

    @property
    def kernel_log(self) -> Path:
        """The node's kernel log as text, where it is a file."""
        return self.home / "kernel.log"

    @property
    def spec(self) -> Path:
        """The `AgentSpec`, mode 0600."""
        return self.folder / "spec.json"

    @property
    def key(self) -> Path:
        """The attempt's key in hex, mode 0600."""
        return self.folder / "key"

    @property
    def agent(self) -> Path:
        """Where the agent listens and who it is; written once it listens."""
        return self.folder / "agent.json"

    @property
    def grant(self) -> Path:
        """The highest grant that the agent accepted."""
        return self.folder / "grant.json"

    @property
    def gone(self) -> Path:
        """The proof that nothing of the attempt is left on this node."""
        return self.folder / "gone.json"

    @property
    def heartbeats(self) -> Path:
        """The FIFO that ranks write to."""
        return self.folder / "heartbeats"

    @property
    def progress(self) -> Path:
        """Every heartbeat of a step, one JSON line each, of bounded size."""
        return self.folder / "progress.jsonl"

    @property
    def logs(self) -> Path:
        """The folder of the logs of agent and ranks."""
        return self.folder / "logs"

    @property
    def stacks(self) -> Path:
        """The folder of stack dumps."""
        return self.folder / "stacks"

    @property
    def collectives(self) -> Path:
        """The folder of the ranks' records of collectives."""
        return self.folder / "collectives"

    def log(self, generation: int, rank: int) -> Path:
        """Return the path of one rank's standard output and error in one generation."""
        return self.logs / f"g{generation}.r{rank}.log"

    def make(self) -> None:
        """Make the attempt's folders, for the owner's eyes only."""
        for folder in (self.folder, self.logs, self.stacks, self.collectives):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def marker(self) -> dict[str, str]:
        """The pair of variables that every process of this attempt on this node carries."""
        return {"HOLDFAST_RUN": self.run, "HOLDFAST_HOME": str(self.home)}


def places(home: Path) -> list[Place]:
    """Return the attempts that have a folder on this node."""
    try:
        runs = sorted(entry.name for entry in os.scandir(home / "attempts") if entry.is_dir())
    except FileNotFoundError:
        return []
    return [Place(home, run) for run in runs]


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file or nothing, and make it durable before returning.

    A kill at any moment leaves the old content or the new one. The folder is synced too: without
    that a rename may be lost with the power. Raises `OSError` if the disk refuses (e.g. full).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def clear_leftovers(folder: Path) -> None:
    """Remove what writers that were killed within `write_atomically` left in a folder.

    Only for whoever knows that nobody writes there now. A disk that refuses keeps them.
    """
    with suppress(OSError):
        for entry in os.scandir(folder):
            if _LEFTOVER.fullmatch(entry.name):
                Path(entry.path).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, body: Mapping[str, Any], *, mode: int = 0o644) -> None:
    """Write one JSON object atomically and durably."""
    write_atomically(path, (json.dumps(body, sort_keys=True) + "\n").encode(), mode=mode)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object of ours, or None if the file is absent.

    Raises `PermanentError` if it is not a JSON object: our files are written whole or not at all,
    so a broken one means a broken disk or a stranger's hand.
    """
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PermanentError(f"{path} cannot be read: {error}") from error
    if not isinstance(body, dict):
        raise PermanentError(f"{path} is not a JSON object")
    return body


def read_token(home: Path) -> int:
    """Return the highest controller's token this node has accepted; 0 before the first."""
    try:
        text = (home / "token").read_text()
        return int(text)
    except FileNotFoundError:
        return 0
    except ValueError as error:
        raise PermanentError(f"{home / 'token'} is not a number: {error}") from error


def raise_token(home: Path, token: int) -> int:
    """Remember `token` if it is the highest so far; return the highest.

    Call it with the node's lock held: launcher and agent both write here.
    """
    highest = read_token(home)
    if token > highest:
        write_atomically(home / "token", f"{token}\n".encode())
        return token
    return highest


@contextmanager
def locked(home: Path, *, limit: float) -> Iterator[None]:
    """Hold the node's lock: one launcher or sweeper at a time, and who raises the token.

    Raises `TransientError` if it is not free within `limit` seconds. The kernel frees it when its
    holder dies; the descriptor is not inherited, so a guard forked under the lock does not keep it.
    """
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, limit)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, limit: float) -> None:
    until = time.monotonic() + limit
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise TransientError(
                    f"the node's lock is held by another for {limit:g} s"
                ) from error
            time.sleep(0.01)
        else:
            return


def boot_id(home: Path) -> str:
    """Return the id of the node's present boot: a local machine's own, else the kernel's."""
    machine = read_json(home / "machine.json")
    if machine is not None and "boot_id" in machine:
        return str(machine["boot_id"])
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
