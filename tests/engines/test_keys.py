from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.core.nodes import JobName
from orchestrator.engines.site import Keys
from orchestrator.errors import PermanentError

TRAIN = JobName("train")


def test_the_key_of_an_attempt_is_the_same_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret"
    first = Keys(path).key(TRAIN, 1)
    assert Keys(path).key(TRAIN, 1) == first
    assert len(bytes.fromhex(first)) == 32


def test_every_attempt_job_and_fleet_has_a_key_of_its_own(tmp_path: Path) -> None:
    keys, others = Keys(tmp_path / "a"), Keys(tmp_path / "b")
    made = {
        keys.key(TRAIN, 1),
        keys.key(TRAIN, 2),
        keys.key(JobName("other"), 1),
        others.key(TRAIN, 1),
    }
    assert len(made) == 4


def test_only_its_owner_may_read_the_secret(tmp_path: Path) -> None:
    Keys(tmp_path / "secret")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"], "nothing else is left"


def test_a_half_written_secret_is_refused_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for half in (b"", b"  \n", b"ab" * 15):
        path.write_bytes(half)
        with pytest.raises(PermanentError, match="backup"):
            Keys(path)
        assert path.read_bytes() == half


def test_two_that_begin_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: Keys(tmp_path / "secret").key(TRAIN, 1), range(16)))
    assert len(set(keys)) == 1
