"""Many schedules, one after the other: `python -m tests.simulation.soak --schedules 10000`.

Prints the mix that was drawn, and every broken promise with its seed and its shrunk schedule. Exit
code 1 if any was broken.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.promises import Verdict, judge_seed, shrink
from tests.simulation.schedules import mix


def main(words: list[str] | None = None) -> int:
    """Play the schedules; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1, help="seed of the first one")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--fail-fast", action="store_true")
    wanted = parser.parse_args(words)
    logging.disable(logging.CRITICAL)  # a daemon that is killed on purpose complains
    seeds = range(wanted.first, wanted.first + wanted.schedules)
    began, broken, played = time.monotonic(), 0, 0
    kinds: Counter[str] = Counter()
    for verdict in verdicts(seeds, wanted.workers):
        played += 1
        kinds.update(mix(verdict.plan))
        if verdict.broken:
            broken += 1
            print(shrink(verdict).told(), flush=True)
            if wanted.fail_fast:
                return 1
        if played % 250 == 0:
            print(f"{played} schedules, {broken} broken, {_since(began)}", flush=True)
    print(f"{played} schedules, {broken} broken, {_since(began)}; faults drawn: {dict(kinds)}")
    return 1 if broken else 0


def verdicts(seeds: range, workers: int) -> Iterator[Verdict]:
    """Yield the verdict of each seed, in order."""
    if workers == 1:
        yield from map(judge_seed, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(judge_seed, seeds, chunksize=4)


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
