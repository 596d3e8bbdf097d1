"""Reading a log for the cause of a failure: how fast, and how often right.

`make bench` reads 10 MB, against one big alternation of `re`. `python -m bench.diagnosis [FILE]`
reads 100 MB, and scores labelled examples: one JSON object a line with `id`, `source`, `text`,
`kind`, `family`, `node_at_fault`.
"""

from __future__ import annotations

import io
import json
import random
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from healthchecks.diagnose import diagnose, diagnose_text
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


def scored(examples: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the figures of labelled examples, in words."""
    found = [diagnose_text(one["text"]) for one in examples]
    pairs = list(zip(examples, found, strict=True))
    kind = sum(one["kind"] == said.kind for one, said in pairs)
    family = sum(one["family"] == said.family for one, said in pairs)
    accused = [one for one, said in pairs if said.node_at_fault is True]
    right = sum(one["node_at_fault"] is True for one in accused)
    guilty = sum(one["node_at_fault"] is True for one in examples)
    yield f"kind right: {kind} of {len(pairs)}; family right: {family} of {len(pairs)}"
    yield f"node_at_fault true: {right} of {len(accused)} right, of {guilty} that are"
    out = [kind for _, kind in held_out(examples)]
    right = sum(one["kind"] == said for one, said in zip(examples, out, strict=True))
    unknown = sum(said == "unknown" != one["kind"] for one, said in zip(examples, out, strict=True))
    yield (
        f"leave one source out: right {right}, unknown {unknown}, "
        f"wrong {len(out) - right - unknown} of {len(out)}"
    )


def held_out(examples: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    """Return, for each example, how many rules were left out and the kind that is said then.

    Left out are the rules that find something in examples of its source and of no other. A rule's
    own `source` is where its words come from, never an example's, and cannot be used for this.
    """
    book = rulebook()
    origins: dict[int, set[str]] = {}
    for one in examples:
        for index, rule in enumerate(book.rules):
            if diagnose_text(one["text"], book._replace(rules=(rule,))).kind == rule.kind:
                origins.setdefault(index, set()).add(_origin(one))
    found = []
    for one in examples:
        own = {_origin(one)}
        kept = tuple(rule for i, rule in enumerate(book.rules) if origins.get(i) != own)
        said = diagnose_text(one["text"], book._replace(rules=kept)).kind
        found.append((len(book.rules) - len(kept), said))
    return found


def _origin(example: dict[str, Any]) -> str:
    return str(example["source"]).split(" ")[0]


class Repeated(io.RawIOBase):
    """A log of so many times the same bytes, which is nowhere in memory as a whole."""

    def __init__(self, body: bytes, times: int) -> None:
        """Read `body` that many times."""
        self._body, self._left, self._at = memoryview(body), times, 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with what comes next; 0 at the end."""
        if self._at == len(self._body):
            self._left, self._at = self._left - 1, 0
        if self._left <= 0:
            return 0
        piece = self._body[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def main() -> None:
    """Print the figures."""
    for share in (0.001, 0.1):
        body = log(share)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        diagnose(io.BufferedReader(Repeated(body, 10)))
        took = time.process_time() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"100 MB, {share:.1%} suspicious: {took:.1f} s of processor, {grown:.0f} MiB more")
    if sys.argv[1:]:
        lines = Path(sys.argv[1]).read_text().splitlines()
        print("\n".join(scored([json.loads(line) for line in lines])))


if __name__ == "__main__":
    main()
