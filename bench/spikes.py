"""How often the verdict on a loss is right: injected faults and healthy runs, told apart or not.

    python -m bench.spikes [--runs 50] [--first-seed 0]

Every run is a real training run of `demo` of its own seed, batch and learning rate. In half of them
something goes wrong at a drawn step: a batch whose answers are noise, the top exponent bit of a
drawn weight flipped (no other bit of a weight below 1 does harm), or a learning rate a factor too
high from then on. Right is: nothing said before, and a verdict within `SOON` steps of the harm. A
healthy run is right if nothing is said at all. Wilson's interval of 95 % stands beside each share.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from model.data.loader import Want
from model.data.samples import IGNORED, Batch
from model.optimizer import Optimizer
from model.settings import parse
from model.trainer import Place, Trainer

STEPS = 40  #: of a run
FROM, TO = 12, 34  #: the steps between which something goes wrong
SOON = 4  #: steps after the harm in which it must be noticed
BATCHES, RATES = (4, 8, 16), (0.004, 0.008, 0.012)
FACTORS = (30.0, 100.0, 300.0)  #: of the learning rate
KINDS = ("batch", "bit", "rate")


@dataclass(frozen=True, slots=True)
class Harm:
    """What goes wrong, and at which step."""

    kind: str
    step: int
    factor: float = 1.0


class Harmed(Trainer):
    """A trainer to which one thing happens."""

    harm: Harm | None = None
    dice: np.random.Generator

    def advance(self) -> Any:
        """Do one step, with the harm if it is its time."""
        harm, number = self.harm, self.step + 1
        if harm is not None and harm.kind == "bit" and number == harm.step:
            self._flip()
        if harm is not None and harm.kind == "batch" and number == harm.step:
            self.loader = _Noise(self.loader, self.dice)  # type: ignore[assignment]
            try:
                return super().advance()
            finally:
                self.loader = self.loader.inner  # type: ignore[attr-defined]
        if harm is not None and harm.kind == "rate" and number >= harm.step:
            self.optimizer = _Hasty(self.optimizer, harm.factor)  # type: ignore[assignment]
            try:
                return super().advance()
            finally:
                self.optimizer = self.optimizer.inner  # type: ignore[attr-defined]
        return super().advance()

    @torch.no_grad()
    def _flip(self) -> None:
        matrices = [p for p in self.model.parameters() if p.dim() == 2]
        weights = matrices[int(self.dice.integers(len(matrices)))]
        at = tuple(int(self.dice.integers(size)) for size in weights.shape)
        weights[at] = flipped(float(weights[at]))


class _Noise:
    """Samples whose answers are drawn at random."""

    def __init__(self, inner: Any, dice: np.random.Generator) -> None:
        self.inner, self.dice = inner, dice

    def get(self, want: Want) -> Batch:
        """Return the batch with other answers."""
        batch: Batch = self.inner.get(want)
        drawn = self.dice.integers(0, 4_000, tuple(batch.targets.shape))
        noise = torch.from_numpy(drawn).to(batch.targets.dtype)
        return replace(batch, targets=noise.where(batch.targets != IGNORED, batch.targets))


class _Hasty:
    """An optimizer whose learning rate is a factor too high."""

    def __init__(self, inner: Optimizer, factor: float) -> None:
        self.inner, self.factor = inner, factor

    def step(self, number: int, learning_rate: float) -> None:
        """Apply the gradients."""
        self.inner.step(number, learning_rate * self.factor)


def flipped(value: float) -> float:
    """Return a float32 with the highest bit of its exponent turned over."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    (out,) = struct.unpack("<f", struct.pack("<I", bits ^ (1 << 30)))
    return float(out)


def run(seed: int, kind: str | None) -> dict[str, Any]:
    """Train once; say what happened and what was said."""
    dice = np.random.default_rng([7, seed])
    batch, rate = dice.choice(BATCHES), dice.choice(RATES)
    wanted = ["--preset", "demo", "--steps", str(STEPS), "--subset", "food", "--seed", str(seed)]
    wanted += ["--batch", str(batch), "--lr", str(rate), "--data-seed", str(seed)]
    trainer = Harmed(parse(wanted), Place())
    trainer.dice = dice
    if kind is not None:
        factor = float(dice.choice(FACTORS))
        trainer.harm = Harm(kind, int(dice.integers(FROM, TO + 1)), factor)
    at = trainer.harm.step if trainer.harm else None
    said = None
    for _ in range(1, STEPS + 1 if at is None else at + SOON + 1):
        totals = trainer.advance()
        said = trainer.sentinel.judge(totals.loss, totals.norm, totals.weights)
        if said is not None:
            break
    right = said is None if at is None else said is not None and trainer.step >= at
    told = None if said is None else {"step": trainer.step, "reason": said.reason}
    facts = {"seed": seed, "batch": int(batch), "rate": float(rate), "kind": kind, "at": at}
    return {**facts, "factor": trainer.harm.factor if kind == "rate" else None, "said": told} | {  # type: ignore[union-attr]
        "right": right
    }


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    z, share = 1.96, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def main() -> None:
    """Run them all; one line of JSON each for what was wrong, and the totals."""
    parser = argparse.ArgumentParser(prog="python -m bench.spikes")
    parser.add_argument("--runs", type=int, default=50, help="of each: injected, healthy")
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    right: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for number in range(given.runs):
        seed = given.first_seed + number
        for kind in (KINDS[number % len(KINDS)], None):
            name = kind or "healthy"
            told = run(seed, kind)
            count[name] += 1
            right[name] += bool(told["right"])
            if not told["right"]:
                print(json.dumps(told), flush=True)
    injected = sum(right[kind] for kind in KINDS)
    rows = {name: f"{right[name]} of {count[name]}" for name in (*KINDS, "healthy")}
    low, high = wilson(injected, given.runs)
    print(json.dumps({**rows, "injected": f"{injected} of {given.runs}", "interval": [low, high]}))


if __name__ == "__main__":
    main()
