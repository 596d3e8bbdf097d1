"""The register: created once, in order, without gaps, whatever is lost on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import TransientError
from orchestrator.runtime.lineage import BadRecordError, Fence, Lineage, Record
from orchestrator.runtime.register import (
    RECORD_BYTES_MAX,
    TRIES_MAX,
    Overtaken,
    Register,
    key_of,
    new_nonce,
)
from orchestrator.runtime.store import DirectoryStore, Store
from tests.runtime.stores import FailingStore, MemoryStore

RACER = """
import sys
from orchestrator.runtime.lineage import Fence
from orchestrator.runtime.register import Overtaken, Register, new_nonce
from orchestrator.runtime.store import DirectoryStore

register, races = Register(DirectoryStore(sys.argv[1])), int(sys.argv[2])
lineage = register.read()
while lineage.next_seq <= races:
    attempt, nonce = lineage.attempt + 1, new_nonce()
    outcome = register.append(lambda seq: Fence(seq, nonce, 1, attempt, 0.0, "racer"), lineage)
    if isinstance(outcome, Overtaken):
        lineage = outcome.lineage
    else:
        print(outcome.seq, nonce)
        lineage = register.read()
"""


def fence(seq: int, *, token: int = 1, attempt: int | None = None) -> Fence:
    return Fence(seq, new_nonce(), token, attempt or seq, 0.0)


def test_two_processes_race_a_thousand_times_and_no_seq_has_two_owners(tmp_path: Path) -> None:
    races = 1000
    argv = [sys.executable, "-c", RACER, str(tmp_path), str(races)]
    racers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [racer.communicate(timeout=100)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    claims = [dict(zip(words[::2], words[1::2], strict=True)) for words in said]
    assert all(claims), "both won some"
    assert not set(claims[0]) & set(claims[1])
    records = [*Register(DirectoryStore(tmp_path)).records()]
    assert {str(r.seq): r.nonce for r in records} == {**claims[0], **claims[1]}
    assert [record.seq for record in records] == [*range(1, len(records) + 1)]
    assert len(records) >= races


def test_threads_sharing_one_register_never_own_one_seq_twice() -> None:
    register = Register(MemoryStore())
    owned: list[int] = []

    def append() -> None:
        lineage = register.read()
        while len(owned) < 200:
            outcome = register.append(fence, lineage)
            if isinstance(outcome, Overtaken):
                lineage = outcome.lineage
            else:
                owned.append(outcome.seq)
                lineage = register.read()

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(owned) == [*range(1, len(owned) + 1)]


def test_reading_again_reads_only_what_is_new() -> None:
    store = MemoryStore()
    writer, reader = Register(store), Register(store)
    writer.append(fence, writer.read())
    assert reader.read().attempt == 1
    store.objects[key_of(1)] = b"never read again"
    writer.append(fence, reader.read())
    assert reader.read().attempt == 2


def test_whoever_comes_second_thinks_again() -> None:
    store = MemoryStore()
    one, other = Register(store), Register(store)
    lineage = other.read()
    one.append(fence, one.read())
    outcome = other.append(fence, lineage)
    assert isinstance(outcome, Overtaken)
    assert outcome.lineage.next_seq == 2


FATES = st.lists(st.sampled_from(["request-lost", "answer-lost"]), max_size=TRIES_MAX - 1)


@given(fates=FATES)
def test_an_unknown_answer_is_tried_with_the_same_bytes_until_it_is_known(fates: list[str]) -> None:
    store = MemoryStore()
    register = Register(FailingStore(store, *fates))
    outcome = register.append(fence, Lineage())
    assert isinstance(outcome, Fence)
    assert [*register.records()] == [outcome]


@given(fates=FATES)
def test_an_unknown_answer_never_takes_what_belongs_to_another(fates: list[str]) -> None:
    store = MemoryStore()
    theirs = Register(store).append(fence, Lineage())
    outcome = Register(FailingStore(store, *fates)).append(fence, Lineage())
    assert isinstance(outcome, Overtaken)
    assert outcome.lineage.fence == theirs


def test_an_answer_that_stays_unknown_is_not_called_a_success() -> None:
    register = Register(FailingStore(MemoryStore(), *["request-lost"] * TRIES_MAX))
    with pytest.raises(TransientError, match="unknown whether record 1"):
        register.append(fence, Lineage())


def test_a_full_disk_creates_no_record() -> None:
    store = MemoryStore()
    register = Register(FailingStore(store, "full"))
    with pytest.raises(TransientError, match="No space left"):
        register.append(fence, Lineage())
    assert store.objects == {}


def test_a_missing_record_is_a_gap_and_not_the_end() -> None:
    store = MemoryStore()
    register = Register(store)
    for _ in range(3):
        register.append(fence, register.read())
    del store.objects[key_of(2)]
    with pytest.raises(BadRecordError, match="record 2 is missing"):
        Register(store).read()


def spoilt(**changes: object) -> bytes:
    body = {"version": 1, "kind": "fence", "seq": 1, "nonce": "n", "token": 1, "attempt": 1}
    return json.dumps({**body, "at": 0.0, "by": "", **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        spoilt(version=2),
        spoilt(seq=7),
        spoilt(kind="other"),
        b"x" * (RECORD_BYTES_MAX + 1),
    ],
    ids=["empty", "half", "version", "seq", "kind", "large"],
)
def test_a_record_that_cannot_be_read_is_never_skipped(data: bytes) -> None:
    store = MemoryStore()
    store.put_exclusive(key_of(1), data)
    with pytest.raises(BadRecordError, match="record 1"):
        Register(store).read()


def test_foreign_files_beside_the_records_are_left_alone() -> None:
    store = MemoryStore()
    store.put_part("commits/README.md", b"hello")
    store.put_part("commits/00000001.json.bak", b"old")
    assert Register(store).read().next_seq == 1


def test_a_record_for_another_seq_is_a_mistake_of_the_caller() -> None:
    register = Register(MemoryStore())

    def wrong(seq: int) -> Record:
        return fence(seq + 1)

    with pytest.raises(ValueError, match="seq 1"):
        register.append(wrong, Lineage())


class Blind(MemoryStore):
    """A directory cache that shows neither a name nor its bytes, though the name is taken."""

    def put_exclusive(self, key: str, data: object) -> bool:
        return False


def test_a_name_that_is_taken_but_cannot_be_seen_yet_is_tried_later() -> None:
    store: Store = Blind()
    with pytest.raises(TransientError):
        Register(store).append(fence, Lineage())
