"""Stores for tests: one in memory, and one that fails by script. Both pass the contract suite."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from orchestrator.errors import TransientError
from orchestrator.runtime.store import Bytes, MissingKeyError, Stat, Store, check_key
from orchestrator.runtime.store import UnknownOutcomeError as Unknown


class MemoryStore:
    """A store that lives as long as the test."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.now = 1_000_000.0
        self.times: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        return "memory"

    def put_exclusive(self, key: str, data: Bytes) -> bool:
        with self._lock:
            if check_key(key) in self.objects:
                return False
            self.objects[key], self.times[key] = bytes(data), self.now
            return True

    def put_part(self, key: str, data: Bytes) -> None:
        self.objects[check_key(key)], self.times[key] = bytes(data), self.now

    def get_range(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if start < 0 or (length is not None and length < 0):
            raise ValueError("no such range")
        if check_key(key) not in self.objects:
            raise MissingKeyError(f"memory: {key}: no such object")
        return self.objects[key][start : None if length is None else start + length]

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        if folder := prefix.rpartition("/")[0]:
            check_key(folder)
        yield from sorted(key for key in self.objects if key.startswith(prefix) and key > after)

    def stat(self, key: str) -> Stat | None:
        found = self.objects.get(check_key(key))
        return None if found is None else Stat(len(found), self.times[key])

    def delete(self, key: str) -> None:
        self.objects.pop(check_key(key), None)

    def must_exist(self) -> None:
        """Memory is always there."""


class FailingStore:
    """Another store whose writes fail as `script` says: one word for each write, then it is well.

    "full": nothing written, TransientError. "request-lost": nothing written, unknown.
    "answer-lost": written, unknown. "ok": written.
    """

    def __init__(self, store: Store, *script: str) -> None:
        self._store = store
        self.script = [*script]

    @property
    def place(self) -> str:
        return f"failing {self._store.place}"

    def _fate(self, key: str) -> str:
        fate = self.script.pop(0) if self.script else "ok"
        if fate == "full":
            raise TransientError(f"{self.place}: {key}: No space left on device")
        if fate == "request-lost":
            raise Unknown(f"{self.place}: {key}: timed out")
        return fate

    def put_exclusive(self, key: str, data: Bytes) -> bool:
        fate = self._fate(key)
        created = self._store.put_exclusive(key, data)
        if fate == "answer-lost":
            raise Unknown(f"{self.place}: {key}: timed out")
        return created

    def put_part(self, key: str, data: Bytes) -> None:
        self._fate(key)
        self._store.put_part(key, data)

    def get_range(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get_range(key, start, length)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        return self._store.list(prefix, after)

    def stat(self, key: str) -> Stat | None:
        return self._store.stat(key)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def must_exist(self) -> None:
        self._store.must_exist()
