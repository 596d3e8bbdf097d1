"""Where bytes lie: the six verbs that a vault and a register need, and the `directory` store.

A store keeps whole objects under plain keys. It promises little, so that a shared folder and an
object store can both promise it: an object is visible whole or not at all, and `put_exclusive`
creates a key for exactly one of any number of writers. Everything else (what a checkpoint is,
which record counts) is decided above, in `vault.py` and `lineage.py`.

Standard library only, Python 3.10. Every failure is one of `errors.py`, and names the place.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Protocol, Union
from urllib.parse import unquote, urlsplit

from orchestrator.errors import PermanentError, TransientError, UserError
from orchestrator.runtime.root import Root, same_file, sync_folder

Bytes = Union[bytes, bytearray, memoryview]

KEY_MAX = 512  #: characters of a key
CHUNK_BYTES = 16 * 1024 * 1024  #: of one read or write call
LEFTOVER_AGE_S = 3600.0  #: a temporary file untouched for so long belongs to a dead writer
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=@+-]{0,199}")
_TEMPORARY = ".tmp-"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}
_NOT_MADE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT}


class BadKeyError(PermanentError):
    """A key that no store accepts: absolute, with `..`, hidden, too long or strange."""


class MissingKeyError(PermanentError):
    """Nothing lies under this key."""


class UnknownOutcomeError(TransientError):
    """A write failed in a way that leaves open whether it took effect."""


@dataclass(frozen=True)
class Stat:
    """What a store knows of one object without reading it."""

    size_bytes: int
    written_at: float  #: epoch seconds on the store's clock


class Store(Protocol):
    """Six verbs. Implementations pass `tests/runtime/test_store_contract.py`."""

    @property
    def place(self) -> str:
        """Where this store is, for people."""

    def put_exclusive(self, key: str, data: Bytes) -> bool:
        """Create `key` durably; False if it exists already (whatever it holds).

        Of any number of concurrent writers exactly one gets True. Raises `UnknownOutcomeError` if
        the object may or may not have been created, `TransientError` if it was not.
        """

    def put_part(self, key: str, data: Bytes) -> None:
        """Write a large object durably; it is visible whole or not at all.

        Keys of parts are new for each write; if one is used twice, the last whole write wins.
        """

    def get_range(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return up to `length` bytes from `start` (all that follow if None), fewer at the end.

        Raises `MissingKeyError` if there is no such object.
        """

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield, in order, the keys that start with `prefix` and are greater than `after`."""

    def stat(self, key: str) -> Stat | None:
        """Return size and time of an object, None if there is none."""

    def delete(self, key: str) -> None:
        """Remove an object; it is no error if there is none."""

    def must_exist(self) -> None:
        """Note that this store was made before: if it is not there, it does not answer.

        Without it a store that is nowhere to be found is a new and empty one. Never raises; the
        verbs do (`TransientError`).
        """


def is_key(key: str) -> bool:
    """Say whether every store can hold this key."""
    return len(key) <= KEY_MAX and all(_SEGMENT.fullmatch(part) for part in key.split("/"))


def check_key(key: str) -> str:
    """Return the key if every store can hold it; raises `BadKeyError` if not."""
    if not is_key(key):
        raise BadKeyError(f"not a key: {key[:80]!r}")
    return key


def open_store(url: str, env: Mapping[str, str] | None = None, *, exists: bool = False) -> Store:
    """Return the store at `file:///dir`, a plain path or `s3://bucket/prefix`.

    `env` may hold what an object store is entered with. With `exists` it was made before, by
    whoever began the run (see `Store.must_exist`). Raises `UserError` on any other URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from orchestrator.runtime.s3 import S3Store  # the only one that needs a library

        return S3Store(url, env)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path not in ("", "/"):
        store: Store = DirectoryStore(unquote(parts.path))
    elif url and "://" not in url:
        store = DirectoryStore(url)
    else:
        raise UserError(
            f"no store for {url!r}: give a path, file:///absolute/path or s3://BUCKET/PREFIX"
        )
    if exists:
        store.must_exist()
    return store


class DirectoryStore:
    """A folder on a local or shared POSIX file system with hard links.

    `put_exclusive` writes and syncs a temporary file, then link(2)s it to its name: a writer that
    is killed leaves a hidden temporary file, never an empty or half-written record (a bare O_EXCL
    would). Leftovers are invisible to `list` and swept by age.

    The folder that was found first is the store for as long as this object lives (`root.py`): if
    it goes away, as with a mount that is lost, nothing is missing and nothing is made anew on the
    disk beneath: every verb raises `TransientError` until it is back.
    """

    def __init__(self, root: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        """Remember the folder; it is made by the first write. `clock` only ages leftovers."""
        self._root = Path(root).absolute()
        self._home = Root(self._root)
        self._clock = clock
        self._swept: set[Path] = set()

    @property
    def place(self) -> str:
        """Where this store is, for people."""
        return str(self._root)

    def put_exclusive(self, key: str, data: Bytes) -> bool:
        """Create `key` durably; False if it exists already. See `Store`."""
        path = self._root / check_key(key)
        temporary = self._write_temporary(path, data)
        try:
            created = _link(temporary, path)
            try:
                sync_folder(path.parent)  # also for a loser: what it will read must stay
                lies_there = not created or same_file(temporary, path)
            except OSError as error:
                raise UnknownOutcomeError(f"{path}: {error.strerror}") from error
            if not (lies_there and self._home.is_it()):
                raise UnknownOutcomeError(f"{path}: the store went away meanwhile")
        finally:
            _discard(temporary)
        return created

    def put_part(self, key: str, data: Bytes) -> None:
        """Write a large object durably, whole or not at all. See `Store`."""
        path = self._root / check_key(key)
        temporary = self._write_temporary(path, data)
        try:
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            _discard(temporary)
            raise _failed(path, error) from error
        self._home.check()

    def get_range(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return up to `length` bytes from `start`. See `Store`."""
        path = self._root / check_key(key)
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"no such range: {start}, {length}")
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                data = _read(file.fileno(), length)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            self._home.check()
            raise MissingKeyError(f"{path}: no such object") from error
        except OSError as error:
            raise _failed(path, error) from error
        self._home.check()
        return data

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys under `prefix` that are greater than `after`, in order. See `Store`."""
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        try:
            keys = sorted(self._walk(folder))
        except OSError as error:
            raise _failed(self._root / folder, error) from error
        self._home.check()
        yield from (key for key in keys if key.startswith(prefix) and key > after)

    def _walk(self, folder: str) -> Iterator[str]:
        try:
            entries = list(os.scandir(self._root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if not _SEGMENT.fullmatch(entry.name):
                continue
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                yield from self._walk(key)
            elif entry.is_file():
                yield key

    def stat(self, key: str) -> Stat | None:
        """Return size and time of an object, None if there is none."""
        path = self._root / check_key(key)
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._home.check()
            return None
        except OSError as error:
            raise _failed(path, error) from error
        self._home.check()
        return Stat(found.st_size, found.st_mtime) if S_ISREG(found.st_mode) else None

    def delete(self, key: str) -> None:
        """Remove an object, and the folder that it leaves empty."""
        path = self._root / check_key(key)
        self._home.check()
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _failed(path, error) from error
        if self._root in path.parent.parent.parents:  # folders of one save; never `parts/` itself
            _discard_folder(path.parent)

    def must_exist(self) -> None:
        """Note that this store was made before. See `Store`."""
        self._home.must_exist()

    def _write_temporary(self, path: Path, data: Bytes) -> Path:
        """Write and sync the bytes beside their later name; nothing is left if that fails."""
        temporary = path.parent / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        self._home.check()
        try:
            self._prepare(path.parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o644)
            try:
                _write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            _discard(temporary)
            raise _failed(path, error) from error
        return temporary

    def _prepare(self, folder: Path) -> None:
        """Make the folder durably; sweep what dead writers left in it, once per folder."""
        self._home.make()
        inside = [one for one in (folder, *folder.parents) if self._root in one.parents]
        for one in reversed(inside):  # never the root itself: it may have gone since
            if not one.exists():
                one.mkdir(exist_ok=True)
                sync_folder(one.parent)
        if folder not in self._swept:
            self._swept.add(folder)
            self.sweep_leftovers(folder)

    def sweep_leftovers(self, folder: Path) -> int:
        """Remove temporary files untouched for `LEFTOVER_AGE_S`; return how many there were."""
        old = self._clock() - LEFTOVER_AGE_S
        count = 0
        for leftover in folder.glob(f"{_TEMPORARY}*"):
            try:
                if leftover.stat().st_mtime < old:
                    leftover.unlink()
                    count += 1
            except FileNotFoundError:  # another writer swept it first
                continue
        return count


def _link(temporary: Path, path: Path) -> bool:
    """Give the temporary file its name; False if somebody else has it.

    A network file system may execute link(2), lose the answer and report EEXIST on its own retry:
    after any error the link count and the inode say who made the name.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if _is_linked(temporary, path):
            return True
        if isinstance(error, FileExistsError):
            return False
        if error.errno in _NO_LINKS:
            text = f"{path.parent}: this file system cannot make hard links ({error.strerror})"
            raise PermanentError(text) from error
        if error.errno in _NOT_MADE:
            raise _failed(path, error) from error
        raise UnknownOutcomeError(f"{path}: {error.strerror}") from error
    return True


def _is_linked(temporary: Path, path: Path) -> bool:
    try:
        return temporary.stat().st_nlink > 1 or same_file(temporary, path)
    except OSError:
        return False


def _write(descriptor: int, data: Bytes) -> None:
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.write(descriptor, view[done : done + CHUNK_BYTES])


def _read(descriptor: int, length: int | None) -> bytes:
    chunks = []
    wanted = length
    while wanted is None or wanted > 0:
        chunk = os.read(descriptor, CHUNK_BYTES if wanted is None else min(wanted, CHUNK_BYTES))
        if not chunk:
            break
        chunks.append(chunk)
        wanted = None if wanted is None else wanted - len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink()
    except OSError:  # a leftover is harmless: it is invisible, and swept by age
        return


def _discard_folder(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # not empty, or gone already
        return


def _failed(path: Path, error: OSError) -> TransientError:
    return TransientError(f"{path}: {error.strerror or error}")
