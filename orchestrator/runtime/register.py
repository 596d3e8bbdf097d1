"""The touching of a commit register: read its records in order, create one more exclusively.

Agents, the controller and the commit writer all append through `Register.append`; what the
records amount to is decided in `lineage.py` alone. Records are never deleted nor rewritten.
Standard library only, Python 3.10.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Union

from orchestrator.errors import TransientError
from orchestrator.runtime import lineage as records
from orchestrator.runtime.lineage import BadRecordError, Lineage, Record
from orchestrator.runtime.store import MissingKeyError, Store, UnknownOutcomeError

PREFIX = "commits/"
RECORD_BYTES_MAX = 1024 * 1024  #: a record is small; anything larger is not one
TRIES_MAX = 5  #: of the same bytes at the same seq after an unknown answer
_NAME = re.compile(rf"{PREFIX}(\d{{8}})\.json")


@dataclass(frozen=True)
class Overtaken:
    """Somebody else holds the seq: think again with the lineage as it is now."""

    lineage: Lineage


def new_nonce() -> str:
    """Return what makes one record or one save unlike any other."""
    return secrets.token_hex(8)


def key_of(seq: int) -> str:
    """Return the key of a record, e.g. `commits/00000007.json`."""
    return f"{PREFIX}{seq:08d}.json"


class Register:
    """One run's register in a store. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        """Remember the store; nothing is read yet."""
        self._store = store
        self._lineage = Lineage()
        self._lock = threading.RLock()

    @property
    def place(self) -> str:
        """Where this register is, for people."""
        return self._store.place

    def must_exist(self) -> None:
        """Note that a record was written before: without it the register does not answer."""
        self._store.must_exist()

    def read(self) -> Lineage:
        """Return the lineage with every record that is there now; reads only the new ones.

        Raises `BadRecordError` at a gap or at a record this version cannot read, `TransientError`
        if the store does not answer.
        """
        with self._lock:
            for record in self._unread():
                self._lineage = self._lineage.then(record)
            return self._lineage

    def records(self) -> Iterator[Record]:
        """Yield every record from the first on, counted or not, for people and audits."""
        for seq in range(1, self.read().next_seq):
            yield records.decode(self.bytes_of(seq), seq=seq)

    def bytes_of(self, seq: int) -> bytes:
        """Return a record as it stands; raises `BadRecordError` if there is none."""
        data = self._bytes(seq)
        if data is None:
            raise BadRecordError(f"register at {self.place}: record {seq} is missing")
        return data

    def append(self, make: Callable[[int], Record], lineage: Lineage) -> Record | Overtaken:
        """Create `make(seq)` exclusively at the seq after `lineage`.

        Returns the record once it is durable, or `Overtaken` if the seq belongs to somebody else.
        After an unknown answer the same bytes are tried at the same seq until the answer is known:
        one's own nonce there means done. Raises `TransientError` if it stays unknown or the store
        refused; if the record lands all the same, the next read shows it like any other.
        """
        seq = lineage.next_seq
        record = make(seq)
        data = records.encode(record)
        if record.seq != seq or len(data) > RECORD_BYTES_MAX:
            raise ValueError(f"not a record for seq {seq}: {record!r:.200}")
        for _ in range(TRIES_MAX):
            outcome = self._try(record, data)
            if outcome is not None:
                return outcome
        raise TransientError(f"register at {self.place}: unknown whether record {seq} was created")

    def _try(self, record: Record, data: bytes) -> Union[Record, Overtaken, None]:
        """Return what became of one try; None if it is not known."""
        try:
            if self._store.put_exclusive(key_of(record.seq), data):
                return record
            found = self._bytes(record.seq)
        except UnknownOutcomeError:
            return None
        if found is None:  # a stale directory cache: the name is taken, its bytes cannot be seen
            return None
        return record if found == data else Overtaken(self.read())

    def _unread(self) -> Iterator[Record]:
        """Yield the records after the known ones.

        A listing tells how far the register reaches, so that a missing record is a gap and not its
        end; the records themselves are read by name, because a listing made while others write may
        lack a name and show a later one.
        """
        seq = self._lineage.next_seq
        reach = max(self._listed(after=seq - 1), default=0)
        while True:
            data = self._bytes(seq)
            if data is None and seq <= reach:
                raise BadRecordError(f"register at {self.place}: record {seq} is missing")
            if data is None:
                return
            yield records.decode(data, seq=seq)
            seq += 1

    def _listed(self, *, after: int) -> Iterator[int]:
        for key in self._store.list(PREFIX, key_of(after)):
            name = _NAME.fullmatch(key)
            if name:
                yield int(name[1])

    def _bytes(self, seq: int) -> bytes | None:
        try:
            data = self._store.get_range(key_of(seq), 0, RECORD_BYTES_MAX + 1)
        except MissingKeyError:
            return None
        if len(data) > RECORD_BYTES_MAX:
            raise BadRecordError(f"register at {self.place}: record {seq} is too large")
        return data
