"""The root of a `directory` store: the one folder that it is, told from its absence.

A folder on a mount that is lost is not an empty store: what was acknowledged in it comes back with
the mount, and what is written beneath meanwhile is hidden then. So a root remembers which folder
it found, by device and inode, and by a mark that it leaves there (device numbers change when the
same file system is mounted again).

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from stat import S_ISDIR

from orchestrator.errors import TransientError

MARK = ".holdfast-store"  #: hidden from every listing; what it holds differs between stores
MARK_BYTES_MAX = 64


class Root:
    """One folder. Safe to share between threads: what two of them find out is the same."""

    def __init__(self, path: Path) -> None:
        """Remember the path; nothing is touched yet."""
        self._path = path
        self._exists = False
        self._found: tuple[int, int] | None = None  #: device and inode
        self._mark = b""  #: nothing until it was read or written
        self._lock = threading.RLock()  #: around what is found out and remembered together

    def must_exist(self) -> None:
        """Note that the folder was made before."""
        self._exists = True

    def check(self) -> None:
        """Raise `TransientError` if the store is not there, or another one is."""
        problem = self._problem()
        if problem:
            raise TransientError(f"{self._path}: {problem}: the store does not answer")

    def is_it(self) -> bool:
        """Say whether the folder that was found is there."""
        return self._found is not None and not self._problem()

    def make(self) -> None:
        """Make the folder durably if this store is a new one, and leave the mark in it.

        Raises `OSError`; call `check` first.
        """
        with self._lock:
            if not self._mark:
                self._make()

    def _make(self) -> None:
        if self._found is None:
            missing = [one for one in (self._path, *self._path.parents) if not one.exists()]
            for one in reversed(missing):
                one.mkdir(exist_ok=True)
                sync_folder(one.parent)
        mark = self._path / MARK
        temporary = self._path / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"
        if not mark.exists():
            try:
                _write_whole(temporary, secrets.token_hex(16).encode() + b"\n")
                _put(temporary, mark)
            finally:
                temporary.unlink(missing_ok=True)
        sync_folder(self._path)
        self._mark = _read(mark)
        self._problem()

    def _problem(self) -> str:
        """Say what is wrong; nothing if the folder is there or may be a new one."""
        try:
            status = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "this folder is gone" if self._found or self._exists else ""
        except OSError as error:
            return str(error.strerror or error)
        if not S_ISDIR(status.st_mode):
            return "this is not a folder"
        found = (status.st_dev, status.st_ino)
        if found == self._found:
            return ""
        with self._lock:
            return self._recognise(found)

    def _recognise(self, found: tuple[int, int]) -> str:
        """Say what is wrong with a folder that is not the known one by device and inode."""
        if found == self._found:  # another thread was here first
            return ""
        try:
            mark = _read(self._path / MARK)
            if self._found is None and self._exists and not mark and self._is_bare():
                return "this folder is bare (is it mounted?)"
        except OSError as error:
            return str(error.strerror or error)
        if self._found is not None and (not mark or mark != self._mark):
            return "this is another folder than the one that was opened"
        self._found, self._mark = found, mark
        return ""

    def _is_bare(self) -> bool:
        """Say whether nothing lies in it, as in a mount point without its mount."""
        return all(entry.name.startswith(".") for entry in self._path.iterdir())


def same_file(one: Path, other: Path) -> bool:
    """Say whether both are names of one file; no if either is nowhere."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_whole(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(temporary: Path, mark: Path) -> None:
    """Give the mark its name; whoever was first has it."""
    try:
        os.link(temporary, mark)
    except FileExistsError:
        return
    except OSError:  # no hard links: parts may lie here all the same, a register cannot
        if not mark.exists():
            temporary.replace(mark)


def _read(mark: Path) -> bytes:
    try:
        with mark.open("rb") as file:
            return file.read(MARK_BYTES_MAX)
    except FileNotFoundError:
        return b""
