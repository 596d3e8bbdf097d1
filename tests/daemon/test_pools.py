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
