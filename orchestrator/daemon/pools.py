"""Bounded pools of threads, one per cluster: one cluster's trouble never slows the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

WORKERS = 8  #: threads per pool


class Pools:
    """Runs work in the pool of a name; the same key is never under way twice."""

    def __init__(self) -> None:
        """Start with no pool; each is made when it is first used."""
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._under_way: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, pool: str, key: str, work: Callable[[], None]) -> bool:
        """Run `work` in `pool`; False if work with this key is still under way."""
        with self._lock:
            if self._closed or key in self._under_way:
                return False
            self._under_way.add(key)
            executor = self._pools.get(pool)
            if executor is None:
                executor = ThreadPoolExecutor(WORKERS, thread_name_prefix=f"holdfast-{pool}")
                self._pools[pool] = executor

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._under_way.discard(key)

        executor.submit(run)
        return True

    @property
    def idle(self) -> bool:
        """Say whether nothing is under way."""
        with self._lock:
            return not self._under_way

    def close(self) -> None:
        """Take no more work, drop what has not begun, and let running calls reach their limits."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
