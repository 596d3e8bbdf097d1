"""`make bench`: each figure beside a peer's, measured in the same run, as a ratio.

Machines are shared and noisy: rounds are interleaved, medians are quoted, and a ratio says more
than a time. Figures worth keeping go into docs/benchmarks.md by hand, with date and machine.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import decide, diagnosis, ledgers, vaults

ROUNDS = 7
Pair = tuple[str, Callable[[], object], str, Callable[[], object]]


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(pair: Pair) -> dict[str, object]:
    """Measure two ways of doing the same, turn by turn."""
    ours, ours_work, peer, peer_work = pair
    for work in (ours_work, peer_work):
        work()  # warm
    times = [(seconds(ours_work), seconds(peer_work)) for _ in range(ROUNDS)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    return {
        "ours": ours,
        "ours_ms": round(mine * 1000, 2),
        "peer": peer,
        "peer_ms": round(other * 1000, 2),
        "ratio": round(ratio, 2),
        "rounds": ROUNDS,
    }


def main() -> None:
    """Run every comparison and print one line each; `-o json` prints JSON."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        folder = Path(name)
        pairs = [*decide.pairs(), *diagnosis.pairs(), *ledgers.pairs(folder), *vaults.pairs(folder)]
        rows = [compare(pair) for pair in pairs]
    if sys.argv[1:] == ["-o", "json"]:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['ours']}: {row['ours_ms']} ms; {row['peer']}: {row['peer_ms']} ms; "
            f"ratio {row['ratio']} (median of {row['rounds']})"
        )


if __name__ == "__main__":
    main()
