"""Reading 10 MB of log for the cause of a failure, against one big alternation of `re`."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Iterator

from healthchecks.diagnose import diagnose
from healthchecks.diagnose.rulebook import rulebook

BYTES = 10_000_000
BAD = (
    "RuntimeError: CUDA error: uncorrectable ECC error encountered",
    "node1:1:2 [0] NCCL WARN NET/IB : Got completion with error 12, vendor err 129",
    "[rank3]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2070)",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "OSError: [Errno 116] Stale file handle",
)


def log(share: float, *, seed: int = 5) -> bytes:
    """Return a log of which this share of the lines is suspicious; no two lines are the same."""
    dice = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(dice.choices(letters, k=dice.randint(3, 9))) for _ in range(5_000)]
    lines: list[str] = []
    size = 0
    while size < BYTES:
        rank, step = dice.randrange(64), dice.randrange(99_999)
        rest = dice.choice(BAD) if dice.random() < share else " ".join(dice.choices(words, k=6))
        lines.append(f"2026-11-25 12:00:01,123 INFO [rank{rank}] step {step} {rest}")
        size += len(lines[-1]) + 1
    return "\n".join(lines).encode()


def pairs() -> Iterator[tuple[str, Callable[[], object], str, Callable[[], object]]]:
    """Yield what is compared."""
    literals = {one.encode() for rule in rulebook().rules for one in rule.literals}
    alternation = re.compile(b"|".join(map(re.escape, sorted(literals))), re.IGNORECASE)
    for share in (0.001, 0.1):
        body = log(share)
        yield (
            f"diagnose 10 MB of log, {share:.1%} of the lines suspicious",
            lambda body=body: diagnose(io.BytesIO(body)),  # type: ignore[misc]
            "re: one alternation of the literals, case ignored, over 0.2 MB of it",
            lambda body=body: sum(1 for _ in alternation.finditer(body[:200_000])),  # type: ignore[misc]
        )
