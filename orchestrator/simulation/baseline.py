"""What the same failures cost a team without Holdfast: a person restarts, checkpoints each hour.

The model of formula 5 (exponential failures, also during restarts; a blocking checkpoint), thrown
rather than solved, so that a trace can be played to it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Manual:
    """How such a team works. Seconds."""

    restart: float = 1_800.0
    interval: float = 3_600.0
    stall: float = 60.0


def efficiency(failures: Iterable[float], seconds: float, team: Manual = Manual()) -> float:
    """Return kept training over wall time, given the moments of the failures, in order."""
    kept, began = 0.0, 0.0
    period = team.interval + team.stall
    for at in failures:
        if at >= seconds:
            break
        kept += max(0.0, (at - began) // period) * team.interval
        began = at + team.restart
    rest = max(0.0, seconds - began)
    whole, partial = divmod(rest, period)
    return (kept + whole * team.interval + min(partial, team.interval)) / seconds


def by_chance(rate: float, seconds: float, dice: Random) -> Iterator[float]:
    """Throw failures of a whole job at a rate per second."""
    at = 0.0
    while rate > 0:
        at += dice.expovariate(rate)
        if at >= seconds:
            return
        yield at


def mean_efficiency(rate: float, seconds: float, seeds: range, team: Manual = Manual()) -> float:
    """Return the mean of `efficiency` over seeds, failures coming at a rate per second."""
    thrown = (efficiency(by_chance(rate, seconds, Random(seed)), seconds, team) for seed in seeds)
    return sum(thrown) / len(seeds)
