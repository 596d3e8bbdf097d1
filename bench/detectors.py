"""Simulated lives of detectors: `python -m bench.detectors [-o json]`.

How often a bad one is promoted, a good one is, and one that turns bad is demoted; and what it costs
those that stay good. The very `core.detectors` is run; only the labels are thrown with dice.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from orchestrator.core.detectors import Authority, Detector

SEED = 1
TRIALS = 2_000
NOW = datetime(2026, 11, 1, tzinfo=UTC)
Precision = Callable[[int], float]


def moves(
    precision: Precision, labels: int, dice: random.Random, start: Authority
) -> Iterator[tuple[int, Authority]]:
    """Yield (number of labels so far, new authority) of each promotion and demotion of a life."""
    detector, authority = Detector("check:code"), start
    for number in range(labels):
        detector = detector.learn(right=dice.random() < precision(number))
        due = detector.due(authority)
        if due is not None:
            authority = due[0]
            detector = detector.given(authority, NOW, due[1])
            yield number + 1, authority


def ever(
    precision: float, labels: int, end: Authority, start: Authority, trials: int, seed: int
) -> float:
    """Return the share of lives of constant precision that come to an authority."""
    found = 0
    for trial in range(trials):
        dice = random.Random(f"{seed}/{precision}/{trial}")
        found += any(a is end for _, a in moves(lambda _: precision, labels, dice, start))
    return found / trials


def fallen(before: float, after: float, trials: int, seed: int) -> dict[str, float]:
    """Return what becomes of detectors that act for 200 labels, and then turn bad."""
    early = caught = 0
    for trial in range(trials):
        dice = random.Random(f"{seed}/fall/{trial}")
        life = moves(lambda n: before if n < 200 else after, 240, dice, Authority.ACT)
        at = next((number for number, authority in life if authority is Authority.OBSERVE), None)
        early += at is not None and at <= 200
        caught += at is not None and at > 200
    return {"demoted_before": early / trials, "demoted_within_40": caught / (trials - early)}


def relapses(trials: int, seed: int) -> float:
    """Return the share of explicit ones of .94 that are promoted again after their demotion."""
    return ever(0.94, 4_000, Authority.ACT, Authority.ACT, trials, seed)


def figures(trials: int = TRIALS, seed: int = SEED) -> dict[str, object]:
    """Return every figure, each over so many lives."""
    o, a = Authority.OBSERVE, Authority.ACT
    return {
        "trials": trials,
        "seed": seed,
        "promoted_within_400_at_0.94": ever(0.94, 400, a, o, trials, seed),
        "promoted_within_400_at_0.93": ever(0.93, 400, a, o, trials, seed),
        "promoted_within_400_at_0.90": ever(0.90, 400, a, o, trials, seed),
        "promoted_within_200_at_0.995": ever(0.995, 200, a, o, trials, seed),
        "promoted_within_200_at_0.98": ever(0.98, 200, a, o, trials, seed),
        "fall_from_0.99_to_0.80": fallen(0.99, 0.80, trials, seed),
        "demoted_within_1000_at_0.99": ever(0.99, 1_000, o, a, trials, seed),
        "demoted_within_400_at_0.94": ever(0.94, 400, o, a, trials, seed),
        "promoted_again_within_4000_at_0.94": relapses(max(1, trials // 10), seed),
    }


def main() -> None:
    """Print the figures."""
    found = figures()
    if sys.argv[1:] == ["-o", "json"]:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
