"""Copies of a vault's checkpoints in a second store: which one next, when, and how.

A replica is a vault that nobody trains into: parts and manifests under the same keys, and the
register's records up to the newest commit that is there whole. So the ranks read from it what the
vault lost (`vault.py`), and it can become the vault itself (`holdfast checkpoint promote`).

The order of writing makes every moment safe to die in: parts, manifest, records, and last a
receipt (`replicated/SEQ.json`), from which whoever comes next knows how far the copies are and what
the egress budget has left. Nothing is copied that does not verify. A replica whose records are not
the register's was promoted, or belongs to another run: nothing more is written there.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import HoldfastError, PermanentError
from orchestrator.runtime import manifests
from orchestrator.runtime.lineage import Commit, Lineage
from orchestrator.runtime.manifests import Part
from orchestrator.runtime.register import RECORD_BYTES_MAX, Register, key_of
from orchestrator.runtime.retention import Keeper
from orchestrator.runtime.spec import Replicate
from orchestrator.runtime.store import CHUNK_BYTES, Bytes, MissingKeyError, Store
from orchestrator.runtime.vault import Committer, Vault, VerificationError

RECEIPTS = "replicated/"
RECEIPTS_KEPT = 100
DAY_S = 86_400.0
_NAME = re.compile(rf"{RECEIPTS}(\d{{8}})\.json")


class ForeignReplicaError(PermanentError):
    """The replica holds another history than the register: it was promoted, or is another run's."""


@dataclass(frozen=True)
class Receipt:
    """One commit that is in the replica, whole and with its records."""

    seq: int
    step: int
    committed_at: float  #: of the commit; epoch seconds on its writer's clock
    at: float  #: when the copy was whole, epoch seconds
    bytes: int  #: that were sent for it
    seconds: float  #: that it took


def due_at(wishes: Replicate, last: Receipt | None) -> float:
    """Return the moment (epoch seconds) from which the next commit should be copied.

    Half of the RPO is for waiting, so that each copy saves as much egress as it may; the other
    half is for the copy itself. The budget may make it later than the RPO allows.
    """
    if last is None:
        return 0.0
    moment = last.committed_at + wishes.rpo / 2
    if wishes.bytes_per_day is not None:
        moment = max(moment, last.at + last.bytes / wishes.bytes_per_day * DAY_S)
    return moment


def behind_since(wishes: Replicate, last: Receipt | None, lineage: Lineage) -> float | None:
    """Return when the copies fell further behind than the RPO allows; None if all is copied."""
    owed = [commit for commit in lineage.commits if last is None or commit.seq > last.seq]
    if not owed:
        return None
    return (owed[0].at if last is None else last.committed_at) + wishes.rpo


class Replication:
    """The copies of one vault in one replica."""

    def __init__(
        self,
        vault: Vault,
        replica: Store,
        wishes: Replicate,
        *,
        spool: Path,
        spend: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`spool` is a folder for one part at a time; `spend(bytes)` may wait for the rate."""
        self._vault, self._replica, self._wishes = vault, replica, wishes
        self._spool, self._spend, self._clock = spool, spend, clock
        self._copy = Vault(replica, Register(replica))
        self._keeper = Keeper(wishes.keep, clock=clock, verify=_is_sound)
        self._damaged: set[int] = set()  #: commits that the vault itself has not whole

    @property
    def place(self) -> str:
        """Where the replica is, for people."""
        return self._replica.place

    def step(self) -> Receipt | None:
        """Copy the newest commit if it is due; return its receipt, None if there was nothing to do.

        Raises `VerificationError` if the vault has not got it whole (the next call takes the one
        before), `ForeignReplicaError` if the replica is not this run's any more, `TransientError`
        if a store does not answer.
        """
        lineage = self._vault.register.read()
        last = self.last()
        newest = self._newest(lineage, last)
        if newest is None or self._clock() < due_at(self._wishes, last):
            return None
        there = self._check_history(lineage)
        began, clock = self._clock(), time.monotonic()
        try:
            sent = self._copy_bytes(newest)
        except VerificationError:
            self._damaged.add(newest.seq)
            raise
        self._copy_records(there + 1, newest.seq)
        took = time.monotonic() - clock
        receipt = Receipt(newest.seq, newest.step, newest.at, began + took, sent, took)
        self._replica.put_exclusive(_key(newest.seq), json.dumps(asdict(receipt)).encode())
        self._prune()
        return receipt

    def fine_until(self) -> float:
        """Return the moment (epoch seconds) until which the copies are as near as the RPO asks.

        Whatever may be committed from now on is owed an RPO later. Raises as `step` does.
        """
        since = behind_since(self._wishes, self.last(), self._vault.register.read())
        return self._clock() + self._wishes.rpo if since is None else since

    def last(self) -> Receipt | None:
        """Return the newest receipt in the replica."""
        return last_receipt(self._replica)

    def _newest(self, lineage: Lineage, last: Receipt | None) -> Commit | None:
        """Return the newest commit that is not copied yet; a damaged one never will be."""
        for commit in reversed(lineage.commits):
            if last is not None and commit.seq <= last.seq:
                return None
            if commit.seq not in self._damaged:
                return commit
        return None

    def _check_history(self, lineage: Lineage) -> int:
        """Return the replica's last record; refuse it if the register's is not the same."""
        there = self._copy.register.read().next_seq - 1
        if there == 0:
            return there
        mine = self._record(there) if there < lineage.next_seq else b""
        if self._replica.get_range(key_of(there), 0, RECORD_BYTES_MAX + 1) != mine:
            raise ForeignReplicaError(
                f"{self._replica.place}: record {there} there is not the one at "
                f"{self._vault.register.place}: it was promoted, or belongs to another run"
            )
        return there

    def _copy_bytes(self, commit: Commit) -> int:
        """Copy the parts that are not there yet, then the manifest; return the bytes sent."""
        manifest = self._vault.open(commit).manifest
        sent = 0
        for part in manifest.parts:
            found = self._replica.stat(part.key)
            if found is None or found.size_bytes != part.bytes:
                self._copy_part(commit, part)
                sent += part.bytes
        data = self._vault.store.get_range(commit.manifest, 0, manifests.MANIFEST_BYTES_MAX)
        self._replica.put_exclusive(commit.manifest, data)
        self._copy.manifest(commit)  # it may have been there: then it must be the one
        return sent + len(data)

    def _copy_part(self, commit: Commit, part: Part) -> None:
        with tempfile.TemporaryFile(dir=self._spool) as file:
            digest = hashlib.sha256()
            for start in range(0, part.bytes, CHUNK_BYTES):
                piece = self._piece(commit, part, start)
                self._spend(len(piece))
                digest.update(piece)
                file.write(piece)
            file.flush()
            if file.tell() != part.bytes or digest.hexdigest() != part.sha256:
                raise VerificationError(commit.seq, (f"part {part.key} does not verify",))
            data: Bytes = b""
            if part.bytes:
                data = memoryview(mmap.mmap(file.fileno(), part.bytes, access=mmap.ACCESS_READ))
            self._replica.put_part(part.key, data)

    def _piece(self, commit: Commit, part: Part, start: int) -> bytes:
        length = min(CHUNK_BYTES, part.bytes - start)
        try:
            return self._vault.store.get_range(part.key, start, length)
        except MissingKeyError as error:
            raise VerificationError(commit.seq, (f"part {part.key} is missing",)) from error

    def _copy_records(self, first: int, last: int) -> None:
        """Append the register's records, each as it stands; somebody else's ends it."""
        for seq in range(first, last + 1):
            data = self._record(seq)
            made = self._replica.put_exclusive(key_of(seq), data)
            if not made and self._replica.get_range(key_of(seq), 0, RECORD_BYTES_MAX + 1) != data:
                raise ForeignReplicaError(
                    f"{self._replica.place}: record {seq} is not ours: it was just promoted"
                )

    def _record(self, seq: int) -> bytes:
        return self._vault.register.bytes_of(seq)

    def _prune(self) -> None:
        """Remove old copies; a copy is never worth a failure that its removal brings."""
        lineage = self._copy.register.read()
        with suppress(HoldfastError):
            if lineage.ruler is not None:
                self._keeper.prune(self._copy, Committer(self._copy, under=lineage.ruler, by=""))
            for key in list(self._replica.list(RECEIPTS))[:-RECEIPTS_KEPT]:
                self._replica.delete(key)


def last_receipt(replica: Store) -> Receipt | None:
    """Return the newest receipt in a replica, None if nothing was ever copied there whole."""
    for key in reversed(list(replica.list(RECEIPTS))):
        with suppress(ValueError, KeyError, TypeError):
            if _NAME.fullmatch(key):
                return _receipt(json.loads(replica.get_range(key, 0, RECORD_BYTES_MAX)))
    return None


def _receipt(body: Any) -> Receipt:
    return Receipt(
        seq=int(body["seq"]),
        step=int(body["step"]),
        committed_at=float(body["committed_at"]),
        at=float(body["at"]),
        bytes=int(body["bytes"]),
        seconds=float(body["seconds"]),
    )


def _key(seq: int) -> str:
    return f"{RECEIPTS}{seq:08d}.json"


def _is_sound(vault: Vault, commit: Commit) -> bool:
    """Say whether a copy is there with the right sizes; its bytes were hashed when they came."""
    try:
        vault.open(commit)
    except VerificationError:
        return False
    return True
