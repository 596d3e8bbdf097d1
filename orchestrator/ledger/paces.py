"""How fast a job's gangs went, from how far they had come when: what was slower than usual.

Pure; part of `bookkeeping`. Nobody tells that a gang is slow: it shows in its steps. Usual is the
speed that gangs of the same size reach or exceed in a twentieth of the job's time: a slow node that
nobody notices may be there most of it, while what makes a gang too fast is noise in short spells.
Slower than that by a tenth is degraded. A job whose later steps are meant to take longer (a longer
context) looks degraded from then on: steps say nothing of what is in them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from orchestrator.core.accounts import Key

Anchor = tuple[datetime, int, timedelta]  #: (moment, step completed by then, stalled so far)
Told = tuple[datetime, int, timedelta | None]  #: the same; None: nobody told how long it stalled
Pace = tuple[datetime, float]  #: from here on, share of the usual speed
Stretch = tuple[datetime, float, float]  #: since, steps per second, seconds

SLOW = 0.9  #: share of the usual speed below which a gang is degraded
USUAL = 0.05  #: share of the time in which the usual speed is reached or exceeded
NOTHING = timedelta(0)
STEPS_MIN = 20  #: steps in which a speed is measured: a step more or less must not matter


def slow(curves: Mapping[Key, list[Anchor]], gpus: Mapping[Key, int]) -> dict[Key, list[Pace]]:
    """Return, for each generation that was slow at times, its speed from each change on."""
    stretches = {key: _stretches(curve) for key, curve in curves.items()}
    usual = _usual(stretches, gpus)
    found: dict[Key, list[Pace]] = {}
    for key, some in stretches.items():
        normal, last = usual.get(gpus[key], 0.0), 1.0
        for since, rate, _ in some:
            speed = rate / normal if normal > 0 and rate < SLOW * normal else 1.0
            if speed != last:
                found.setdefault(key, []).append((since, speed))
            last = speed
    return found


def rising(known: Iterable[Told]) -> list[Anchor]:
    """Return moments in order in which neither steps nor stalls ever fall.

    Stalls that nobody told at a moment are laid evenly between those that were.
    """
    kept: list[Told] = []
    for at, step, stalled in sorted(known, key=lambda one: (one[0], one[1], one[2] or NOTHING)):
        if not kept or step >= kept[-1][1]:
            kept.append((at, step, stalled))
    found: list[Anchor] = []
    sums = [(at, stalled) for at, _, stalled in kept if stalled is not None]
    before, behind = (kept[0][0] if kept else None, NOTHING), 0
    for at, step, _ in kept:
        while behind < len(sums) and sums[behind][0] <= at:
            before, behind = (sums[behind][0], max(before[1], sums[behind][1])), behind + 1
        since, stalled = before
        if since is not None and behind < len(sums) and at > since:
            more = max(NOTHING, sums[behind][1] - stalled)
            stalled += more * ((at - since) / (sums[behind][0] - since))
        found.append((at, step, stalled))
    return found


def _stretches(curve: list[Anchor]) -> list[Stretch]:
    """Return stretches of at least `STEPS_MIN` steps with their speeds, stalls left out."""
    found: list[Stretch] = []
    if not curve:
        return found
    start = curve[0]
    for anchor in curve[1:]:
        steps = anchor[1] - start[1]
        if steps >= STEPS_MIN:
            spent = (anchor[0] - start[0] - (anchor[2] - start[2])).total_seconds()
            if spent > 0:
                found.append((start[0], steps / spent, spent))
            start = anchor
    return found


def _usual(stretches: Mapping[Key, list[Stretch]], gpus: Mapping[Key, int]) -> dict[int, float]:
    """Return the usual speed of the gangs of each size."""
    rates: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for key, some in stretches.items():
        rates[gpus[key]] += [(rate, seconds) for _, rate, seconds in some]
    return {size: _reached(some) for size, some in rates.items() if some}


def _reached(weighted: list[tuple[float, float]]) -> float:
    """Return the speed that is reached or exceeded in the share `USUAL` of the time."""
    left = USUAL * sum(seconds for _, seconds in weighted)
    for rate, seconds in sorted(weighted, reverse=True):
        left -= seconds
        if left <= 0:
            return rate
    return min(weighted)[0]
