"""One thread that calls back when something took too long.

Some of paramiko's calls wait for ever for a host that acknowledges TCP and does nothing else (a
frozen machine). Whoever makes such a call sets an alarm first; if it rings, the connection is
dropped, which ends every call on it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG = logging.getLogger("holdfast")


class Watchdog:
    """Alarms in order of time; the thread starts with the first one and is a daemon."""

    def __init__(self) -> None:
        """Start with no alarm and no thread."""
        self._alarms: list[tuple[float, int]] = []
        self._set: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def alarm(self, seconds: float, ring: Callable[[], None]) -> Iterator[None]:
        """Call `ring` in the watchdog's thread unless the body ends within `seconds`."""
        number = next(self._numbers)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="holdfast-ssh-watchdog", daemon=True
                )
                self._thread.start()
            self._set[number] = ring
            at = time.monotonic() + seconds
            first = not self._alarms or at < self._alarms[0][0]
            heapq.heappush(self._alarms, (at, number))
            if first:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._set.pop(number, None)

    def close(self) -> None:
        """Ring no more."""
        with self._changed:
            self._closed = True
            self._set.clear()
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            ring = self._next()
            if ring is None:
                return
            try:
                ring()
            except Exception:
                LOG.exception("an alarm of the SSH watchdog failed")

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next alarm that is still set and due; None when closed."""
        with self._changed:
            while not self._closed:
                while self._alarms and self._alarms[0][1] not in self._set:
                    heapq.heappop(self._alarms)
                if not self._alarms:
                    self._changed.wait()
                    continue
                at, number = self._alarms[0]
                left = at - time.monotonic()
                if left <= 0:
                    heapq.heappop(self._alarms)
                    return self._set.pop(number)
                self._changed.wait(left)
            return None
