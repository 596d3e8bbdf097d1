"""The S3 store where a server is special: busy, silent, dishonest; answers that are lost."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from typing import Any

import pytest

from orchestrator.config.scalars import store_url
from orchestrator.errors import PermanentError, TransientError, UserError
from orchestrator.runtime import s3 as module
from orchestrator.runtime.lineage import Fence, Lineage
from orchestrator.runtime.register import Overtaken, Register
from orchestrator.runtime.s3 import S3Store, parse_url
from orchestrator.runtime.store import UnknownOutcomeError, open_store
from tests.runtime.s3_servers import KEYS, PAGE, bucket, moto, scripted

pytest.importorskip("boto3", reason="boto3 is not installed (extra s3)")


def store(url: str, **keys: Any) -> S3Store:
    return S3Store(url, KEYS, pause=lambda _: None, **keys)


@pytest.mark.parametrize("word", ["answer-lost", "request-lost", "failed", "failed-after"])
def test_a_record_whose_answer_is_lost_is_unknown_and_never_tried_by_the_library(word: str) -> None:
    with scripted(word) as (url, server):
        with pytest.raises(UnknownOutcomeError):
            store(url).put_exclusive("commits/1.json", b"mine")
        assert sum("commits" in asked for asked in server.asked) == 1


def test_a_conflict_that_the_server_gave_up_is_unknown() -> None:
    with scripted("conflict") as (url, _), pytest.raises(UnknownOutcomeError, match="409"):
        store(url).put_exclusive("commits/1.json", b"mine")


@pytest.mark.parametrize("word", ["answer-lost", "failed-after"])
def test_a_register_finds_its_own_record_after_a_lost_answer(word: str) -> None:
    with scripted(word) as (url, _):
        one = store(url)
        assert not _appends_twice(one)


def test_wrong_keys_are_told_at_once() -> None:
    with scripted("forbidden") as (url, _), pytest.raises(PermanentError, match="AccessDenied"):
        store(url).put_exclusive("commits/1.json", b"mine")


def test_a_server_that_ignores_the_condition_gets_no_record() -> None:
    with scripted(honest=False) as (url, server):
        with pytest.raises(PermanentError, match="overwrites in spite of If-None-Match"):
            store(url).put_exclusive("commits/1.json", b"mine")
        assert not any("commits" in path for path in server.objects)


def test_a_busy_server_is_asked_again_for_a_part() -> None:
    with scripted("busy", "failed", "answer-lost") as (url, _):
        one = store(url)
        one.put_part("parts/a", b"bytes")
        assert one.get_range("parts/a") == b"bytes"


def test_a_server_that_stays_busy_is_an_error_that_may_pass() -> None:
    with scripted(*["busy"] * 10) as (url, _), pytest.raises(TransientError, match="SlowDown"):
        store(url).put_part("parts/a", b"bytes")


def test_a_server_that_blocks_without_an_error_costs_no_more_than_our_deadline() -> None:
    with scripted("silent") as (url, _):
        begun = time.monotonic()
        with pytest.raises(UnknownOutcomeError):
            store(url, answer=0.3).put_exclusive("commits/1.json", b"mine")
        assert time.monotonic() - begun < 3


def test_a_server_that_is_not_there_is_an_error_that_may_pass() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(TransientError):
        store(f"s3://bucket/run?endpoint=http://127.0.0.1:{port}").stat("parts/a")


def test_a_large_part_is_uploaded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch)
    one = store(bucket(moto()))
    data = random.Random(7).randbytes(3 * module.PIECE_BYTES + 17)
    one.put_part("parts/a", data)
    assert one.get_range("parts/a") == data
    assert (
        one.get_range("parts/a", module.PIECE_BYTES - 1, 3)
        == (data[module.PIECE_BYTES - 1 : module.PIECE_BYTES + 2])
    )


def test_an_interrupted_upload_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch)
    url = bucket(moto())
    data = random.Random(8).randbytes(3 * module.PIECE_BYTES)
    with pytest.raises(TransientError):
        Interrupted(url, after=2).put_part("parts/a", data)
    assert store(url).stat("parts/a") is None, "nothing is visible of half an upload"
    again = Interrupted(url, after=9)
    again.put_part("parts/a", data)
    assert again.sent == 1
    assert store(url).get_range("parts/a") == data


def test_pieces_of_other_bytes_are_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch)
    url = bucket(moto())
    dice = random.Random(9)
    with pytest.raises(TransientError):
        Interrupted(url, after=2).put_part("parts/a", dice.randbytes(3 * module.PIECE_BYTES))
    data = dice.randbytes(3 * module.PIECE_BYTES)
    store(url).put_part("parts/a", data)
    assert store(url).get_range("parts/a") == data


def test_uploads_that_nobody_went_on_with_are_swept_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch)
    url = bucket(moto())
    with pytest.raises(TransientError):
        Interrupted(url, after=1).put_part("parts/a", bytes(2 * module.PIECE_BYTES))
    begun = [one["Initiated"].timestamp() for one in store(url)._uploads("")]  # moto's own clock
    assert store(url, clock=lambda: begun[0] + 60).sweep_leftovers() == 0
    later = begun[0] + module.LEFTOVER_AGE_S + 60
    assert store(url, clock=lambda: later).sweep_leftovers() == 1
    assert store(url, clock=lambda: later).sweep_leftovers() == 0


def test_of_many_writers_of_a_register_exactly_one_holds_each_seq() -> None:
    url = bucket(moto())
    assert double_commits(url, races=10, writers=4) == 0


def test_a_long_listing_is_whole() -> None:
    one = store(bucket(moto()))
    keys = [f"parts/{n:04d}" for n in range(PAGE + 30)]
    for key in keys:
        one.put_part(key, b"")
    page = one._s3().list_objects_v2(Bucket=one._url.bucket, Prefix=f"{one._url.prefix}parts/")
    assert len(page["Contents"]) == PAGE
    assert list(one.list("parts/")) == keys
    assert list(one.list("parts/", "parts/0055")) == keys[56:]


def test_a_client_made_before_a_fork_is_not_used_after_it() -> None:
    one = store(bucket(moto()))
    one.put_part("parts/a", b"parent")
    before = one._s3()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if one._s3() is not before and one.get_range("parts/a") == b"parent" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "expected s3://BUCKET"),
        ("s3:///x", "expected s3://BUCKET"),
        ("s3://key:secret@bucket/x", "expected s3://BUCKET"),
        ("s3://bucket/x?secret=hunter2", "once each"),
        ("s3://bucket/x?endpoint=ftp://h", "endpoint=https"),
        ("s3://bucket/x?endpoint", "cannot be read"),
        ("s3://bucket/../x", "not a key"),
        ("s3://bucket/x#y", "expected s3://BUCKET"),
    ],
)
def test_a_wrong_url_is_told_without_its_secrets(url: str, said: str) -> None:
    with pytest.raises((UserError, PermanentError), match=said) as told:
        open_store(url)
    assert "hunter2" not in str(told.value)


def test_an_url_of_a_job_file_stays_as_it_is() -> None:
    from pathlib import Path

    url = "s3://bucket/runs/a?endpoint=https://s3.example.org&region=eu-1"
    assert store_url(url, Path("/x")) == url
    assert parse_url(url).place == "s3://bucket/runs/a at https://s3.example.org"


class Interrupted(S3Store):
    """Loses the network after so many pieces."""

    def __init__(self, url: str, after: int) -> None:
        super().__init__(url, KEYS, pause=lambda _: None)
        self.sent, self.after = 0, after

    def _piece(self, full: str, upload: str, number: int, piece: bytes) -> Any:
        if self.sent == self.after:
            raise TransientError("the network is gone")
        self.sent += 1
        return super()._piece(full, upload, number, piece)


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 5 * 1024 * 1024)  # the smallest that S3 takes
    monkeypatch.setattr(module, "SINGLE_BYTES_MAX", 5 * 1024 * 1024)


def _appends_twice(one: S3Store) -> bool:
    """Append one fence; say whether anything but exactly that fence is in the register."""
    register = Register(one)
    fence = register.append(lambda seq: Fence(seq, "ab" * 8, 1, 1, 1.0, "me"), register.read())
    return register.read().fence != fence


def double_commits(url: str, races: int, writers: int) -> int:
    """Let writers race for each seq; return how often not exactly one of them won."""
    registers = [Register(S3Store(url, KEYS)) for _ in range(writers)]
    wrong = 0
    for race in range(1, races + 1):
        won: list[str] = []
        gate = threading.Barrier(writers)

        def write(
            number: int, gate: threading.Barrier = gate, race: int = race, won: list[str] = won
        ) -> None:
            register = registers[number]
            lineage: Lineage = register.read()
            nonce = f"{number:04x}{race:012x}"
            gate.wait()
            made = register.append(lambda seq: Fence(seq, nonce, race, race, 1.0, nonce), lineage)
            if not isinstance(made, Overtaken):
                won.append(nonce)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = registers[0].read()
        holds = seen.fence is not None and [seen.fence.nonce] == won and seen.next_seq == race + 1
        wrong += not holds
    return wrong
