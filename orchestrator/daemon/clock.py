"""The daemon's clocks: wall time for what people read, a monotonic one for how long."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the loop needs of time; tests hand in one they turn by hand."""

    def now(self) -> datetime:
        """Return the present moment, UTC."""
        ...

    def elapsed(self) -> float:
        """Return seconds since some fixed moment; suspended time counts, steps do not."""
        ...


class SystemClock:
    """The computer's clocks."""

    def now(self) -> datetime:
        """Return the present moment, UTC."""
        return datetime.now(UTC)

    def elapsed(self) -> float:
        """Return seconds of CLOCK_BOOTTIME, which neither jumps nor stops while suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
