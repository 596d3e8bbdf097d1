"""Which rank makes all others wait: robust scores of steps, and persistence before accusation.

In a synchronous gang every step takes as long as its slowest rank, so whole steps tell nothing.
What a rank computes by itself, without waiting for its peers, does: it is compared with the median
of the ranks of the same role (a pipeline's first and last stage are slower by right), step by step.
One slow step is a checkpoint, a garbage collection or a compile; slow in most of fifty is a
straggler.

Pure, on plain data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

WINDOW = 50  #: steps that are looked at, the newest
STEPS_MIN = 20  #: fewer say nothing
SLOW, VERY_SLOW = 1.1, 1.3  #: of the median of its peers: watched; suspected of a fault
PERSISTENT = 0.8  #: share of the steps in which it must be slow
SPREAD = 1.4826  #: median absolute deviation -> standard deviation of a normal distribution
SPREAD_MIN = 0.01  #: of the median: peers that are all alike must not make noise look large
SCORE_MIN = 4.0  #: robust standard deviations


class Straggler(NamedTuple):
    """One rank that holds the others up, persistently."""

    rank: int
    ratio: float  #: of its own time to its peers' median
    score: float  #: the same in robust standard deviations
    persistence: float  #: share of the steps in which it was slow
    suspected: bool  #: so slow that a fault is likely


def stragglers(
    own: Mapping[int, Sequence[float]], roles: Mapping[int, str] | None = None
) -> tuple[Straggler, ...]:
    """Return the stragglers, the slowest first.

    `own`: for each rank the seconds of its own work in each step, the same steps for all, the
    newest last; `roles`: ranks of different roles are not compared. Fewer than three ranks of a
    role, or too few steps, say nothing.
    """
    found = [one for ranks in _groups(own, roles) for one in _among(ranks, own)]
    return tuple(sorted(found, key=lambda one: -one.ratio))


def compared(
    own: Mapping[int, Sequence[float]], roles: Mapping[int, str] | None = None
) -> frozenset[int]:
    """Return the ranks of which something can be said: enough peers, and enough steps."""
    return frozenset(rank for ranks in _groups(own, roles) for rank in ranks)


def _groups(
    own: Mapping[int, Sequence[float]], roles: Mapping[int, str] | None
) -> Iterator[list[int]]:
    by_role: dict[str, list[int]] = {}
    for rank in own:
        by_role.setdefault((roles or {}).get(rank, ""), []).append(rank)
    for ranks in by_role.values():
        if len(ranks) >= 3 and min(len(own[one]) for one in ranks) >= STEPS_MIN:
            yield ranks


def _among(ranks: Sequence[int], own: Mapping[int, Sequence[float]]) -> list[Straggler]:
    steps = min(len(own[one]) for one in ranks)
    window = {one: own[one][len(own[one]) - min(WINDOW, steps) :] for one in ranks}
    usual = [median(column) for column in zip(*window.values(), strict=True)]
    ratios = {one: _ratios(times, usual) for one, times in window.items()}
    typical = {one: median(each) for one, each in ratios.items()}
    middle = median(typical.values())
    spread = max(SPREAD_MIN, SPREAD * median(abs(one - middle) for one in typical.values()))
    said = []
    for rank, each in ratios.items():
        slow = sum(one > SLOW for one in each) / len(each)
        score = (typical[rank] - middle) / spread
        if typical[rank] > SLOW and slow >= PERSISTENT and score >= SCORE_MIN:
            said.append(Straggler(rank, typical[rank], score, slow, typical[rank] > VERY_SLOW))
    return said


def _ratios(times: Sequence[float], usual: Sequence[float]) -> list[float]:
    return [own / peers if peers > 0 else 1.0 for own, peers in zip(times, usual, strict=True)]
