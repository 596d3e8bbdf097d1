"""What a snapshot costs a step: ours, a blocking copy, and torch.distributed.checkpoint.async_save.

    python -m bench.snapshots [--megabytes 500 2000] [--busy] -o json

The cost is the median time of steps with a snapshot minus that of steps without, so that page
faults and interference count. Rounds are interleaved: in each every way does the same steps. A step
computes for at least twice the time of a copy (one thread), then changes the whole state. `--busy`
keeps every core but one at work meanwhile. Memory is the growth of this process's resident pages.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint

from orchestrator.runtime.capture import Flat, Snapshotter
from orchestrator.runtime.ladder import Image
from orchestrator.runtime.memory import Segment, segment_bytes

TENSOR = 4 * 1024 * 1024  #: elements of one tensor, 16 MB
STEPS = 5  #: of each way in a round; the first is not counted
RATIO = 2.5  #: computing time of a step, in copies


class Way:
    """One way to take a snapshot: `begin` after a step, `settle` before the next update."""

    name = "none"

    def ready(self) -> None:
        """Finish what is not part of a step; its time does not count."""

    def begin(self, step: int) -> None:
        """Begin to save the state as it is."""
        del step

    def settle(self) -> None:
        """Let the state be changed."""

    def close(self) -> None:
        """Finish whatever is in flight, and let go of memory."""


class Ours(Way):
    """`capture.Snapshotter`: copied and hashed in a thread, into pre-faulted shared memory."""

    name = "ours"

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        """Reserve memory for `state`."""
        self._state = state
        flat = Flat.of(state)
        descriptor = os.memfd_create("bench")
        os.ftruncate(descriptor, segment_bytes(flat.bytes + 1_000_000))
        self._segment = Segment(descriptor, populate=True)
        self._snapshotter = Snapshotter(self._segment, "bench.1")

    def begin(self, step: int) -> None:
        """Begin to copy."""
        assert self._snapshotter.begin(Image(1, step), Flat.of(self._state), {})

    def settle(self) -> None:
        """Wait for the copy."""
        self._snapshotter.settle()

    def close(self) -> None:
        """Unmap."""
        self._snapshotter.settle()
        self._segment.close()


class Blocking(Way):
    """A plain copy_ into pre-faulted shared memory while the training waits; no hash."""

    name = "blocking"

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        """Reserve memory for `state`."""
        self._state = state
        self._copies = [torch.zeros_like(one).share_memory_() for one in state.values()]

    def begin(self, step: int) -> None:
        """Copy."""
        del step
        for copy, one in zip(self._copies, self._state.values(), strict=True):
            copy.copy_(one)


class Async(Way):
    """`async_save` with its asynchronous stager, to a file system in memory."""

    name = "async_save"

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        """Make the stager once: its buffers are reused."""
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        self._state = state
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-", dir="/dev/shm"))
        options = StagingOptions(
            use_pinned_memory=False,
            use_shared_memory=False,
            use_async_staging=True,
            use_non_blocking_copy=False,
        )
        self._stager = DefaultStager(options)
        self._response: Any = None

    def ready(self) -> None:
        """Let the upload before end: uploads of every step would queue up."""
        if self._response is not None:
            self._response.upload_completion.result()

    def begin(self, step: int) -> None:
        """Begin to stage."""
        self._response = checkpoint.async_save(
            dict(self._state),
            checkpoint_id=self._folder / str(step % 2),
            async_stager=self._stager,
            no_dist=True,
        )

    def settle(self) -> None:
        """Wait until it is staged."""
        if self._response is not None:
            self._response.staging_completion.result()

    def close(self) -> None:
        """Wait for the upload, and remove it."""
        if self._response is not None:
            self._response.upload_completion.result()
        self._stager.close()
        shutil.rmtree(self._folder, ignore_errors=True)


WAYS: tuple[Callable[[dict[str, torch.Tensor]], Way], ...] = (
    lambda _: Way(),
    Blocking,
    Ours,
    Async,
)


def steps(
    way: Way, state: dict[str, torch.Tensor], loops: int, square: torch.Tensor
) -> list[float]:
    """Return the times of `STEPS` steps, a snapshot in each."""
    took = []
    for step in range(STEPS):
        began = time.perf_counter()
        way.begin(step)
        for _ in range(loops):
            square @ square
        way.settle()
        for one in state.values():
            one.mul_(1.0001)
        took.append(time.perf_counter() - began)
    return took[1:]


def resident() -> int:
    """Return the bytes of this process's resident pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(megabytes: int, rounds: int) -> dict[str, Any]:
    """Return each way's cost for a state of that size."""
    state = {str(n): torch.rand(TENSOR) for n in range(max(1, megabytes * 10**6 // (4 * TENSOR)))}
    square = torch.rand(512, 512)
    blocking = Blocking(state)
    copies = []
    for _ in range(5):
        began = time.perf_counter()
        blocking.begin(0)
        copies.append(time.perf_counter() - began)
    copy_s = statistics.median(copies[1:])
    del blocking
    began = time.perf_counter()
    for _ in range(20):
        square @ square
    loops = max(1, round(RATIO * copy_s / ((time.perf_counter() - began) / 20)))
    times: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    for _ in range(rounds):
        for make in WAYS:
            before = resident()
            way = make(state)
            times.setdefault(way.name, []).extend(steps(way, state, loops, square))
            grown = resident() - before
            memory[way.name] = max(grown, memory.get(way.name, 0))
            way.close()
            del way
    plain = statistics.median(times.pop("none"))
    costs = {name: statistics.median(mine) - plain for name, mine in times.items()}
    return {
        "state_mb": round(sum(one.numel() for one in state.values()) * 4 / 1e6),
        "step_s": round(plain, 4),
        "copy_s": round(copy_s, 4),
        "ways": {
            name: {
                "cost_s": round(cost, 4),
                "of_blocking": round(cost / costs["blocking"], 3),
                "memory_mb": round(memory[name] / 1e6),
            }
            for name, cost in costs.items()
        },
        "rounds": rounds,
    }


def _spin() -> None:
    while True:
        pass


@contextmanager
def company(busy: bool) -> Iterator[None]:
    """Keep every core but one at work meanwhile, if wanted."""
    count = (os.cpu_count() or 1) - 1 if busy else 0
    spinning = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for one in spinning:
        one.start()
    try:
        yield
    finally:
        for one in spinning:
            one.kill()
            one.join()


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="bench.snapshots", description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="keep the other cores at work")
    warnings.filterwarnings("ignore", category=UserWarning)  # of torch's checkpoints, in threads
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with company(asked.busy):
        rows = [measure(size, asked.rounds) for size in asked.megabytes]
    found = {"snapshots": rows, "busy": asked.busy, "load": load, "cores": os.cpu_count()}
    if asked.output == "json":
        print(json.dumps(found))
        return
    for row in rows:
        print(f"{row['state_mb']} MB, steps of {row['step_s']} s, copy {row['copy_s']} s")
        for name, way in row["ways"].items():
            print(
                f"  {name}: +{way['cost_s']} s a step ({way['of_blocking']} of blocking), "
                f"{way['memory_mb']} MB more memory"
            )
    print(f"busy {asked.busy}, load before {load:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
