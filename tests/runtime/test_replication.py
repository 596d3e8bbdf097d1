"""Copies in a replica: in an order that may be cut anywhere, of what verifies, within a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import TransientError
from orchestrator.runtime.lineage import Lineage
from orchestrator.runtime.register import Register
from orchestrator.runtime.replication import (
    ForeignReplicaError,
    Receipt,
    Replication,
    behind_since,
    due_at,
    last_receipt,
)
from orchestrator.runtime.spec import Replicate
from orchestrator.runtime.store import Bytes, Store
from orchestrator.runtime.vault import Vault, VerificationError
from tests.runtime.stores import MemoryStore
from tests.runtime.vaults import Story

WISHES = Replicate(rpo=600.0)
DAY = 86_400.0
DATA = ("parts/", "manifests/")


class Clock:
    """Epoch seconds, set by the test; the story's commits are of moment 0."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class CutStore(MemoryStore):
    """A store that is cut off after a number of writes and deletions."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def _spend(self) -> None:
        if self.left == 0:
            raise TransientError("cut off")
        self.left -= 1

    def put_exclusive(self, key: str, data: Bytes) -> bool:
        self._spend()
        return super().put_exclusive(key, data)

    def put_part(self, key: str, data: Bytes) -> None:
        self._spend()
        super().put_part(key, data)

    def delete(self, key: str) -> None:
        self._spend()
        super().delete(key)


def story() -> Story:
    one = Story(MemoryStore())
    one.fence()
    one.generation()
    return one


def copies(
    one: Story, replica: Store, spool: Path, wishes: Replicate = WISHES, clock: Clock | None = None
) -> Replication:
    return Replication(one.vault, replica, wishes, spool=spool, clock=clock or Clock())


def stands_alone(replica: Store) -> Lineage:
    """Return the history in a replica, every commit that it keeps being whole."""
    vault = Vault(replica, Register(replica))
    lineage = vault.register.read()
    for commit in lineage.commits:
        report = vault.verify(commit)
        assert report.ok or report.pruned, report
    assert lineage.head is None or vault.verify(lineage.head).ok
    return lineage


# ---- when ----------------------------------------------------------------------------------------


def receipt(committed_at: float, at: float, size: int = 1_000) -> Receipt:
    return Receipt(3, 10, committed_at, at, size, 1.0)


def test_the_first_copy_is_due_at_once_and_each_other_half_an_rpo_after_its_commit() -> None:
    assert due_at(WISHES, None) == 0.0
    assert due_at(WISHES, receipt(5_000.0, 5_100.0)) == 5_300.0


def test_the_budget_spreads_copies_over_the_day() -> None:
    tight = Replicate(rpo=600.0, bytes_per_day=4_000.0)
    assert due_at(tight, receipt(5_000.0, 5_100.0, size=1_000)) == 5_100.0 + DAY / 4
    wide = Replicate(rpo=600.0, bytes_per_day=1e12)
    assert due_at(wide, receipt(5_000.0, 5_100.0)) == 5_300.0


def test_copies_are_behind_an_rpo_after_what_is_not_there_and_never_while_all_is() -> None:
    one = story()
    first = replace(one.commit(1), at=7_000.0)
    lineage = replace(one.register.read(), commits=(first,))
    assert behind_since(WISHES, None, lineage) == 7_600.0
    there = replace(receipt(7_000.0, 7_100.0), seq=first.seq)
    assert behind_since(WISHES, there, lineage) is None
    second = replace(first, seq=first.seq + 1, at=9_000.0)
    both = replace(lineage, commits=(first, second))
    assert behind_since(WISHES, there, both) == 7_600.0  # what is lost is all since the first


# ---- what ----------------------------------------------------------------------------------------


def test_the_newest_commit_is_copied_whole_with_all_records_and_stands_alone(
    tmp_path: Path,
) -> None:
    one, replica = story(), MemoryStore()
    one.commit(1, b"old")
    newest = one.commit(2, b"new")
    told = copies(one, replica, tmp_path).step()
    assert told is not None
    assert (told.seq, told.step) == (newest.seq, 2)
    lineage = Register(replica).read()
    assert lineage == one.register.read()
    assert Vault(replica, Register(replica)).verify(newest).ok
    missing = Vault(replica, Register(replica)).verify(lineage.commits[0])
    assert missing.pruned  # nothing was sent for the older one: its records alone are there
    assert told.bytes == sum(len(v) for k, v in replica.objects.items() if k.startswith(DATA))
    assert copies(one, replica, tmp_path).step() is None


def test_a_replica_serves_a_run_that_lost_its_vault(tmp_path: Path) -> None:
    one, replica = story(), MemoryStore()
    one.commit(1)
    copies(one, replica, tmp_path).step()
    heir = Story(replica)
    heir.fence()
    heir.generation(resume=heir.register.read().commits[-1].seq)
    assert heir.commit(2).parent == one.register.read().commits[-1].seq
    assert heir.register.read().attempt == 2


def test_damage_is_not_copied_but_stepped_over(tmp_path: Path) -> None:
    one, replica = story(), MemoryStore()
    good = one.commit(1, b"good")
    bad = one.commit(2, b"bad")
    part = one.vault.open(bad).manifest.parts[0]
    one.store.put_part(part.key, b"x" * part.bytes)
    replication = copies(one, replica, tmp_path)
    with pytest.raises(VerificationError):
        replication.step()
    assert part.key not in replica.objects
    assert last_receipt(replica) is None
    told = replication.step()
    assert told is not None
    assert told.seq == good.seq
    stands_alone(replica)
    later = one.commit(3, b"fine")
    replication._clock.now += 1_000  # type: ignore[attr-defined]
    assert (told := replication.step()) is not None
    assert told.seq == later.seq


@pytest.mark.parametrize("writes", range(14))
def test_it_may_be_cut_off_at_any_write_and_whoever_comes_next_goes_on(
    tmp_path: Path, writes: int
) -> None:
    one, replica = story(), CutStore(1_000)
    wishes = replace(WISHES, keep=1)
    first = one.commit(1, b"first")
    copies(one, replica, tmp_path, wishes).step()
    newest = one.commit(2, b"second")
    replica.left = writes
    clock = Clock(10_000.0)
    try:
        copies(one, replica, tmp_path, wishes, clock).step()
        cut = False
    except TransientError:
        cut = True
    lineage = stands_alone(replica)
    told = last_receipt(replica)
    assert told is not None
    assert told.seq in (first.seq, newest.seq)
    assert {commit.seq for commit in lineage.commits} >= {told.seq}  # receipts come last
    replica.left = 1_000
    clock.now += 10_000
    again = copies(one, replica, tmp_path, wishes, clock).step()
    assert (again is None) is (told.seq == newest.seq)
    assert cut or again is None
    assert stands_alone(replica).head == newest
    assert copies(one, replica, tmp_path, wishes, clock).step() is None
    one.commit(3)
    clock.now += 10_000
    assert copies(one, replica, tmp_path, wishes, clock).step() is not None
    left = [key for key in replica.objects if key.startswith(DATA)]
    assert len(left) == 3  # also what was left behind where the pruning was cut off


def test_what_is_there_already_is_not_sent_again(tmp_path: Path) -> None:
    one, replica = story(), CutStore(1)  # one part, then the line is cut
    commit = one.commit(1)
    with pytest.raises(TransientError):
        copies(one, replica, tmp_path).step()
    assert len(replica.objects) == 1
    replica.left = 1_000
    told = copies(one, replica, tmp_path).step()
    assert told is not None
    all_of_it = sum(len(replica.objects[key]) for key in replica.objects if key.startswith(DATA))
    parts = one.vault.open(commit).manifest.parts
    assert told.bytes in {all_of_it - part.bytes for part in parts}


def test_old_copies_are_pruned_and_old_receipts(tmp_path: Path) -> None:
    one, replica, clock = story(), MemoryStore(), Clock()
    for step in range(1, 7):
        one.commit(step, b"%d" % step)
        clock.now += 10_000
        assert copies(one, replica, tmp_path, replace(WISHES, keep=2), clock).step() is not None
    vault = Vault(replica, Register(replica))
    whole = [commit.step for commit in vault.register.read().commits if vault.verify(commit).ok]
    assert whole == [5, 6]


# ---- whose ---------------------------------------------------------------------------------------


def test_a_replica_that_was_promoted_is_not_touched(tmp_path: Path) -> None:
    one, replica = story(), MemoryStore()
    one.commit(1)
    copies(one, replica, tmp_path).step()
    Story(replica).fence()  # somebody goes on there
    before = dict(replica.objects)
    one.commit(2)
    with pytest.raises(ForeignReplicaError, match="promoted"):
        copies(one, replica, tmp_path, clock=Clock(10_000.0)).step()
    one.generation()
    one.commit(3)  # more records here than there: the same
    with pytest.raises(ForeignReplicaError):
        copies(one, replica, tmp_path, clock=Clock(10_000.0)).step()
    assert replica.objects == before


def test_a_promotion_in_the_middle_of_a_copy_wins(tmp_path: Path) -> None:
    one, replica = story(), MemoryStore()
    one.commit(1)
    copies(one, replica, tmp_path).step()
    one.commit(2)

    class Promoted(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.objects, self.times = replica.objects, replica.times

        def put_part(self, key: str, data: Bytes) -> None:
            super().put_part(key, data)
            if Register(replica).read().attempt == 1:
                Story(replica).fence()

    with pytest.raises(ForeignReplicaError):
        copies(one, Promoted(), tmp_path, clock=Clock(10_000.0)).step()
    assert Register(replica).read().attempt == 2
    assert stands_alone(replica).head is not None


def test_another_run_s_place_is_refused(tmp_path: Path) -> None:
    other = story()
    other.commit(1)
    one = story()
    one.commit(1)
    with pytest.raises(ForeignReplicaError):
        copies(one, other.store, tmp_path).step()


def test_a_receipt_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    one, replica = story(), MemoryStore()
    one.commit(1)
    told = copies(one, replica, tmp_path).step()
    replica.objects["replicated/00000009.json"] = b'{"seq": "nine"}'
    replica.objects["replicated/zzz"] = b"{}"
    assert last_receipt(replica) == told
