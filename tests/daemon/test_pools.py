from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from orchestrator.daemon.pools import Pools


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


def test_the_same_key_is_never_under_way_twice(pools: Pools) -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(10)

    assert pools.submit("ash", "agent a-1", work)
    assert begun.wait(10)
    assert not pools.submit("ash", "agent a-1", work)
    assert not pools.idle
    release.set()


def test_a_cluster_that_hangs_does_not_keep_another_waiting(pools: Pools) -> None:
    release, done = threading.Event(), threading.Event()

    def hangs() -> None:
        release.wait(10)

    for number in range(40):
        pools.submit("ash", f"agent a-{number}", hangs)
    assert pools.submit("birch", "agent b-1", done.set)
    assert done.wait(10)
    release.set()


def test_a_key_is_free_again_after_its_work_failed(pools: Pools) -> None:
    tried = threading.Event()

    def fails() -> None:
        tried.set()
        raise RuntimeError("no")

    assert pools.submit("ash", "key", fails)
    assert tried.wait(10)
    done = threading.Event()
    while not pools.submit("ash", "key", done.set):
        pass
    assert done.wait(10)


def test_a_closed_pool_takes_no_work() -> None:
    pools = Pools()
    pools.close()
    assert not pools.submit("ash", "key", lambda: None)


def test_work_that_fails_is_told_in_the_log(pools: Pools, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise ZeroDivisionError("a bug")

    pools.submit("ash", "agent a-1", fails)
    assert pools.wait(10)
    assert "agent a-1 failed" in caplog.text


def test_work_that_was_dropped_at_the_end_is_not_waited_for(pools: Pools) -> None:
    release = threading.Event()

    def hangs() -> None:
        release.wait(10)

    for number in range(20):
        pools.submit("ash", f"agent {number}", hangs)
    pools.close()
    assert not pools.wait(0.01)
    release.set()
    assert pools.wait(10)
    assert pools.idle


def test_a_key_is_free_again_when_its_work_cannot_be_begun(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert not pools.submit("ash", "key", lambda: None)
    assert pools.idle
    assert pools.submit("birch", "key", lambda: None)
