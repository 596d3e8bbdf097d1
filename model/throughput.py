"""The peak that a share is taken of: a big matrix product on this very processor, now.

A vendor's figure says what the silicon could do; on a shared machine only a peak measured in the
same process, with the same threads and precision, makes a share mean anything.
"""

from __future__ import annotations

import time

import torch

SIDES = {"cpu": 768, "cuda": 8_192}  #: by device type: large enough to keep it busy
ROUNDS = 20
CPU = torch.device("cpu")


def peak_flops(precision: str, device: torch.device = CPU, side: int | None = None) -> float:
    """Return floating-point operations per second of the best of a few matrix products."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = SIDES[device.type] if side is None else side
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(ROUNDS):
        _finish(device)
        started = time.perf_counter()
        one @ other
        _finish(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * side**3 / best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
