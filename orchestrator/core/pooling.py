"""What the provider's other cohorts say of a cohort's base rate before it has a history of its own.

Shrinkage provider -> cohort: each cohort's base rate (its logarithm) is a draw from the provider's,
the provider's mean a draw from what is typical anywhere. All normal, so the pooling is closed. What
a cohort's own posterior says beyond the typical prior is its evidence; the prior is never counted
twice. Sure of itself, a cohort gives little on its siblings.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

from orchestrator.core.phases import TYPICAL, RatePrior

BETWEEN_SD = 0.8  #: cohorts of one provider differ by a factor of 2.2 either way


def pooled(siblings: Iterable[tuple[float, float]]) -> RatePrior:
    """Return the prior of a cohort's base rate from its siblings' (mean, variance of the log)."""
    weight = 1 / (TYPICAL.sd**2 - BETWEEN_SD**2)
    total = TYPICAL.mean * weight
    for mean, variance in siblings:
        seen = 1 / variance - 1 / TYPICAL.sd**2 if variance > 0 else float("inf")
        if seen <= 0.05:
            continue  # it has seen nothing yet
        own = (mean / variance - TYPICAL.mean / TYPICAL.sd**2) / seen
        more = 1 / (1 / seen + BETWEEN_SD**2)
        weight, total = weight + more, total + own * more
    # two digits are enough for a prior, and make equal questions of nearly equal ones
    mean, sd = total / weight, sqrt(1 / weight + BETWEEN_SD**2)
    return RatePrior(round(mean, 2), round(sd, 2))
