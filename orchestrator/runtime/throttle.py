"""Keeps a stream of bytes below a rate. Standard library only, Python 3.10."""

from __future__ import annotations

import time


class Throttle:
    """A rate that a stream does not exceed; what was not used is not saved up."""

    def __init__(self, rate: float) -> None:
        """Begin now; `rate` is in bytes per second."""
        self._rate, self._at = rate, time.monotonic()

    def spend(self, size: int) -> None:
        """Wait until `size` bytes more may go."""
        now = time.monotonic()
        self._at = max(self._at, now) + size / self._rate
        if self._at > now:
            time.sleep(self._at - now)
