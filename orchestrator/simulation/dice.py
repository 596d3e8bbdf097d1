"""Seeded dice, one stream per purpose, so that a new kind of fault shifts no other one's throws."""

from __future__ import annotations

import math
import random
from statistics import NormalDist

P95 = NormalDist().inv_cdf(0.95)


class Dice:
    """All chance of one world, from one seed."""

    def __init__(self, seed: int) -> None:
        """Begin with a seed; equal seeds give equal worlds."""
        self.seed = seed
        self._streams: dict[str, random.Random] = {}

    def of(self, purpose: str) -> random.Random:
        """Return the stream of throws for a purpose, such as "failures of a/1"."""
        if purpose not in self._streams:
            self._streams[purpose] = random.Random(f"{self.seed}/{purpose}")
        return self._streams[purpose]


def lognormal(dice: random.Random, median: float, spread: float) -> float:
    """Throw a lognormal duration with this median, and `spread` = 95th percentile over median."""
    sigma = math.log(spread) / P95
    return median * math.exp(sigma * dice.gauss(0.0, 1.0))
