"""How often a snapshot is taken: as often as what it really costs stays within a budget.

The cost is measured where it is felt: the median time of steps with a snapshot minus that of steps
without, so that page faults and interference count. Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

SAMPLES_MIN = 5
WINDOW = 15
FIRST_EVERY = 4  #: while the cost is not known
EVERY_MAX = 1_000


class Cadence:
    """Decides after which steps a snapshot is taken."""

    def __init__(self, budget: float) -> None:
        """`budget` is the part of the step time that snapshots may cost, such as 0.005."""
        self._budget = budget
        self._with: deque[float] = deque(maxlen=WINDOW)
        self._without: deque[float] = deque(maxlen=WINDOW)
        self._since = 0

    def took(self, seconds: float, *, snapshot: bool) -> None:
        """Learn how long a step took in which a snapshot was copied, or none."""
        (self._with if snapshot else self._without).append(seconds)

    @property
    def cost_s(self) -> float | None:
        """What one snapshot costs in seconds; None while it is not known."""
        if min(len(self._with), len(self._without)) < SAMPLES_MIN:
            return None
        return max(0.0, statistics.median(self._with) - statistics.median(self._without))

    @property
    def every(self) -> int:
        """After how many steps the next one is due."""
        cost = self.cost_s
        if cost is None:
            return FIRST_EVERY
        allowed = self._budget * statistics.median(self._without)
        if cost <= allowed:
            return 2 if self._budget < 1 else 1  # half of the steps stay as a measure
        return EVERY_MAX if allowed <= 0 else min(EVERY_MAX, math.ceil(cost / allowed - 1e-6))

    def due(self) -> bool:
        """Count one step; say whether a snapshot is due after it."""
        self._since += 1
        if self._since < self.every:
            return False
        self._since = 0
        return True
