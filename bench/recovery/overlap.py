"""What a snapshot of a state on a GPU adds to a step, beside a copy that the step waits for."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from orchestrator.runtime.capture import Flat, Snapshotter
from orchestrator.runtime.ladder import Image
from orchestrator.runtime.memory import Segment, hasher, segment_bytes

TENSOR = 4 * 1024 * 1024  #: elements of one tensor, 16 MB
MEGABYTE = 1_000_000
ROUNDS, STEPS = 4, 3  #: interleaved; the first step of each way in a round is not counted
RATIO = 2.5  #: computing of a step, in copies


class Bench:
    """A state on a device, and room for its copies."""

    def __init__(self, device: str) -> None:
        """Make it: 2 GB on a GPU, 34 MB on a CPU, where it only shows that all this works."""
        self.cuda = device != "cpu"
        count, side = (120, 4096) if self.cuda else (2, 256)
        self.state = [torch.rand(TENSOR, device=device) for _ in range(count)]
        self.copies = [torch.empty(TENSOR, pin_memory=self.cuda) for _ in range(count)]
        self.square = torch.rand(side, side, device=device)
        self.flat = Flat.of(self.state)
        descriptor = os.memfd_create("bench")
        os.ftruncate(descriptor, segment_bytes(self.flat.bytes + MEGABYTE))
        self.snapshotter = Snapshotter(Segment(descriptor, populate=True), "bench.1")
        self.snapshots = 0

    def timed(self, *work: Callable[[], object]) -> float:
        """Return how long some work takes, on the device too."""
        self.wait()
        began = time.perf_counter()
        for one in work:
            one()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def nothing(self) -> None:
        """Take no snapshot."""

    def blocking(self) -> None:
        """Copy into pinned memory, and wait for it; no hash."""
        for copy, one in zip(self.copies, self.state, strict=True):
            copy.copy_(one, non_blocking=self.cuda)
        self.wait()

    def ours(self) -> None:
        """Begin a snapshot."""
        self.snapshots += 1
        if not self.snapshotter.begin(Image(1, self.snapshots), self.flat, {}):
            raise RuntimeError("the state does not fit")

    def settle(self) -> None:
        """Wait for the snapshot."""
        self.snapshotter.settle()

    def compute(self) -> None:
        """Multiply once."""
        self.square @ self.square

    def update(self) -> None:
        """Change the whole state."""
        torch._foreach_mul_(self.state, 1.0001)


def measure(device: str) -> dict[str, Any]:
    """Return the medians, in seconds."""
    bench = Bench(device)
    bench.timed(bench.blocking, bench.compute)
    copy_s = statistics.median(bench.timed(bench.blocking) for _ in range(5))
    alone_s = statistics.median(bench.timed(bench.ours, bench.settle) for _ in range(3))
    one_s = bench.timed(*[bench.compute] * 10) / 10
    loops = max(1, round(RATIO * max(copy_s, alone_s) / one_s))
    ways = {"none": bench.nothing, "blocking": bench.blocking, "ours": bench.ours}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, begin in ways.items():
            steps = [
                bench.timed(begin, *[bench.compute] * loops, bench.settle, bench.update)
                for _ in range(STEPS)
            ]
            times[name] += steps[1:]
    medians = {name: statistics.median(mine) for name, mine in times.items()}
    found = {
        "state_mb": round(bench.flat.bytes / MEGABYTE),
        "hash": hasher()[0],
        "pinned": bench.snapshotter.pinned,
        "torn": bench.snapshotter.torn,
        "copy_blocking_s": round(copy_s, 4),
        "copy_and_hash_alone_s": round(alone_s, 4),
        "copy_and_hash_beside_s": round(bench.snapshotter.copy_s, 4),
        "step_s": round(medians["none"], 4),
        "cost_s": {n: round(m - medians["none"], 4) for n, m in medians.items() if n != "none"},
        "steps": len(times["none"]),
    }
    bench.snapshotter.close()
    return found
