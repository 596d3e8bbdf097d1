"""Model-FLOPs utilisation of one accelerator, in a bounded time.

    python -m bench.gpu_model --out FILE [--device cuda] [--preset edge-7b] [--limit-s 150]

Measured in this order, each part caught, reported and written to FILE before the next begins:
the card, the peak of bfloat16 products on random data, the kernels of attention, forward and
backward of micro-batches, a profile, the optimizer, a whole step with accumulated gradients, and
whether the model computes there what it computes on a CPU. After the limit the process ends.

The state is that of real training: bfloat16 weights and gradients, float32 copies and moments, Muon
and Adam. If the preset does not fit beside the activations of the smallest micro-batch, it loses
layers, and the report says how many are left. Operations are our closed form's, which counts
causal attention in full, as PaLM's convention does; the share with half of it stands beside.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._dynamo

from bench.gpu_device import Bench
from bench.gpu_training import Case, Training
from model.config import PRESETS

ON_GPU = (
    Case(2, 4096, 4096),
    Case(1, 4096, 4096),
    Case(4, 4096, 4096, recompute=True),
    Case(3, 4096, 4096),
    Case(1, 4096, 4096, compiled=False),
)
ON_CPU = (Case(2, 48, 32), Case(2, 48, 32, recompute=True), Case(2, 48, 32, compiled=False))


class Report:
    """What is known so far, in a file that is whole at any moment."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self.path, self.ends_at = path, time.monotonic() + limit_s
        self.parts: dict[str, Any] = {}
        self._watch = threading.Timer(limit_s, self._give_up)
        self._watch.daemon = True
        self._watch.start()

    def _give_up(self) -> None:
        self.write("limit", "reached")
        os._exit(3)

    def close(self) -> None:
        """Say that everything was done in time."""
        self._watch.cancel()
        self.write("limit", "not reached")

    def write(self, name: str, said: Any) -> None:
        """Add a part and flush."""
        self.parts[name] = said
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(self.parts, indent=1))
        beside.replace(self.path)
        print(f"{name}: {json.dumps(said)[:2000]}", flush=True)

    def part(self, name: str, work: Callable[[], Any], limit_s: int) -> Any:
        """Do one part; what goes wrong is its result, and None is returned."""
        left = self.ends_at - time.monotonic()
        if left < 5.0:
            self.write(name, {"skipped": "no time left"})
            return None
        started = time.monotonic()
        try:
            with alarm(max(1, min(limit_s, int(left) - 2))):
                said = work()
        except Exception as error:  # noqa: BLE001 - a part that fails must not lose the others
            text = f"{type(error).__name__}: {error}"
            self.write(name, {"failed": text[:1500], "wall_s": time.monotonic() - started})
            return None
        shown = said if isinstance(said, dict) else {"value": said}
        self.write(name, {**shown, "wall_s": round(time.monotonic() - started, 2)})
        return said


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in what runs too long."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything that time allows."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_model")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", choices=list(PRESETS), default="edge-7b")
    parser.add_argument("--limit-s", type=float, default=150.0, help="then the process ends")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args(arguments)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    torch._dynamo.config.recompile_limit = 64  # one for each micro-batch and kind of block
    report = Report(given.out, given.limit_s)
    bench = Bench(given.device, given.preset)
    cases = ON_GPU if bench.cuda else ON_CPU
    report.part("device", bench.describe, 30)
    report.part("peak", bench.find_peak, 20)
    report.part("attention", bench.attention, 20)
    report.part("fit", lambda: bench.fit(min(cases, key=lambda case: case.positions)), 5)
    training: Training | None = None

    def start() -> dict[str, Any]:
        nonlocal training
        training = Training(bench, given.compile)
        bench.sync()
        return {"built": True}

    report.part("build", start, 40)
    if training is not None:
        _train(report, training, cases)
    report.part("agreement", bench.agreement, 20)
    report.close()


def _train(report: Report, training: Training, cases: Sequence[Case]) -> None:
    """Measure the micro-batches; what matters most comes before the rest of them."""

    def measure(case: Case, *, suffix: str = "") -> None:
        name = f"{case.batch} x ({case.encoder} + {case.decoder}){suffix}"
        name += " recomputed" * case.recompute + " eager" * (not case.compiled)
        report.part(name, lambda: training.measure(case), 60)

    first, *rest = cases
    measure(first)
    if training.case is None and len(training.bench.backends) > 1:
        del training.bench.backends[0]  # the quickest kernel of attention may be what failed
        torch.compiler.reset()
        measure(first, suffix=" with the second kernel")
    if training.case is None:
        measure(rest.pop(0))
    report.part("profile", training.profile, 20)
    report.part("whole step", training.whole_step, 45)
    for case in rest:
        measure(case)


if __name__ == "__main__":
    main()
