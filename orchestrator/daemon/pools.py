"""Bounded pools of threads, one per cluster: one cluster's trouble never slows the others.

What lasts (tests between nodes, examinations of idle ones) has threads of its own, which nobody
waits for: it changes nothing, and a daemon that is told to stop stops.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

LOG = logging.getLogger("holdfast")
LASTING = "tests of "  #: how the names of pools begin whose work lasts
WORKERS = 8  #: threads per pool, if nothing else is said


class Pools:
    """Runs work in the pool of a name; the same key is never under way twice."""

    def __init__(self, sizes: Mapping[str, int] | None = None) -> None:
        """Start with no pool; each is made when it is first used, with its threads of `sizes`."""
        self._sizes = dict(sizes or {})
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._under_way: set[str] = set()
        self._lasting: set[str] = set()
        self._lock = threading.Condition()
        self._closed = False

    def submit(self, pool: str, key: str, work: Callable[[], None]) -> bool:
        """Run `work` in `pool`; False if it cannot be begun, or the same key is still under way."""
        if pool.startswith(LASTING):
            return self._last(pool, key, work)
        with self._lock:
            if self._closed or key in self._under_way:
                return False
            self._under_way.add(key)
            executor = self._pools.get(pool)
            if executor is None:
                size = self._sizes.get(pool, WORKERS)
                executor = ThreadPoolExecutor(size, thread_name_prefix=f"holdfast-{pool}")
                self._pools[pool] = executor

        try:
            executor.submit(lambda: _run(key, work)).add_done_callback(lambda _: self._ended(key))
        except RuntimeError as error:  # closed just now, or no thread can be started
            LOG.warning("%s cannot be begun: %s", key, error)
            self._ended(key)
            return False
        return True

    def _last(self, pool: str, key: str, work: Callable[[], None]) -> bool:
        """Run work in a thread of its own that does not keep the process alive."""
        with self._lock:
            if self._closed or key in self._lasting:
                return False
            self._lasting.add(key)

        def run() -> None:
            _run(key, work)
            with self._lock:
                self._lasting.discard(key)

        try:
            threading.Thread(target=run, name=f"holdfast-{pool}", daemon=True).start()
        except RuntimeError as error:  # no thread can be started
            LOG.warning("%s cannot be begun: %s", key, error)
            with self._lock:
                self._lasting.discard(key)
            return False
        return True

    def _ended(self, key: str) -> None:
        with self._lock:
            self._under_way.discard(key)
            self._lock.notify_all()

    @property
    def idle(self) -> bool:
        """Say whether nothing is under way."""
        with self._lock:
            return not self._under_way

    def wait(self, limit: float) -> bool:
        """Wait at most `limit` seconds until nothing is under way; say whether that came true."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._under_way, limit)

    def close(self) -> None:
        """Take no more work, drop what has not begun, and let running calls reach their limits."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def _run(key: str, work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:  # a bug: whoever waits for a result sees none, so it is told here
        LOG.exception("%s failed", key)
