"""The peak that a share is taken of: a big matrix product on this very processor, now.

A vendor's figure says what the silicon could do; on a shared machine only a peak measured in the
same process, with the same threads and precision, makes a share mean anything.
"""

from __future__ import annotations

import time

import torch

SIDE = 768
ROUNDS = 20


def peak_flops(precision: str, side: int = SIDE) -> float:
    """Return floating-point operations per second of the best of a few matrix products."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one = torch.randn(side, side).to(dtype)
    other = torch.randn(side, side).to(dtype)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - started)
    return 2.0 * side**3 / best
