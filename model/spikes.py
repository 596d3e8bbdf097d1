"""When a loss is no longer to be believed: pure judgement over the steps before.

The sentinel knows the losses and gradient norms of the last steps that it called healthy. It calls
a step spoiled if a number is not finite, if the weights have grown as no update makes them grow (a
flipped bit of an exponent need not show in the loss: norms hide it), if the loss stands far above
its recent level, or if several losses in a row stand clearly above it. "Far" is measured in the
spread from step to step (median absolute deviation) and in the level itself, for early in a run
losses fall quickly and late they hardly move. A noisy batch is not a spike: a needless rollback
costs as much as a late one.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

WINDOW = 32  #: healthy steps that are remembered
FEWEST = 8  #: without so many, only numbers that are not finite are judged
SIGMA = 1.4826  #: of a normal distribution, per median absolute deviation
#: A single step is spoiled above median + max(FAR * sigma, FAR_SHARE * median, FAR_NATS).
FAR, FAR_SHARE, FAR_NATS = 8.0, 0.5, 0.5
#: `ROW` steps running are spoiled above median + max(HIGH * sigma, HIGH_SHARE * median, HIGH_NATS).
ROW, HIGH, HIGH_SHARE, HIGH_NATS = 3, 4.0, 0.25, 0.25
#: A gradient so many times its recent median is spoiled if the loss is high as well.
STEEP = 10.0
#: Weights so many times their norm before are spoiled: no learning rate makes them grow so fast.
GROWN = 1.5


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Why the last steps are not to be believed."""

    reason: str
    steps: int  #: how many of the last steps are suspect


@dataclass(slots=True)
class Sentinel:
    """Judges one step after another; its memory belongs in the checkpoint."""

    losses: list[float] = field(default_factory=list)  #: of healthy steps, the newest last
    norms: list[float] = field(default_factory=list)
    row: int = 0  #: high losses running
    weights: float = 0.0  #: norm of the weights at the last step

    def judge(self, loss: float, norm: float, weights: float) -> Spoiled | None:
        """Return why a step is spoiled, or None; it is remembered only if it was not high.

        `norm` is that of the gradient, `weights` that of all weights the step began with.
        """
        if not (math.isfinite(loss) and math.isfinite(norm) and math.isfinite(weights)):
            said = f"loss {loss}, gradient norm {norm}, weights' norm {weights}: not finite"
            return Spoiled(said, 1)
        if self.weights and weights > GROWN * self.weights:
            return Spoiled(f"weights' norm {weights:.4g} after {self.weights:.4g}", 1)
        self.weights = weights
        if len(self.losses) < FEWEST:
            self._remember(loss, norm)
            return None
        level, spread = _level(self.losses)
        if loss > level + max(FAR * spread, FAR_SHARE * level, FAR_NATS):
            return Spoiled(f"loss {loss:.3f} against {level:.3f} +- {spread:.3f}", self.row + 1)
        if loss <= level + max(HIGH * spread, HIGH_SHARE * level, HIGH_NATS):
            self.row = 0
            self._remember(loss, norm)
            return None
        return self._high(loss, norm, level)

    def _high(self, loss: float, norm: float, level: float) -> Spoiled | None:
        self.row += 1
        usual = statistics.median(self.norms)
        if norm > STEEP * usual:
            said = (
                f"loss {loss:.3f} against {level:.3f}, gradient {norm / usual:.0f} times its norm"
            )
            return Spoiled(said, self.row)
        if self.row >= ROW:
            return Spoiled(f"{self.row} losses up to {loss:.3f} against {level:.3f}", self.row)
        return None

    def _remember(self, loss: float, norm: float) -> None:
        self.losses = [*self.losses, loss][-WINDOW:]
        self.norms = [*self.norms, norm][-WINDOW:]

    def forget(self) -> None:
        """Begin anew: another stage has other losses."""
        self.losses, self.norms, self.row = [], [], 0

    def state(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "row": self.row,
            "weights": self.weights,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.losses = [float(one) for one in state["losses"]]
        self.norms = [float(one) for one in state["norms"]]
        self.row = int(state["row"])
        self.weights = float(state["weights"])


def _level(losses: list[float]) -> tuple[float, float]:
    """Return the median of the newest half, and the spread from one step to the next.

    Differences, not distances from the median: a loss that falls quickly is no noise.
    """
    steps = [after - before for before, after in pairwise(losses)]
    middle = statistics.median(steps)
    spread = SIGMA * statistics.median(abs(step - middle) for step in steps) / math.sqrt(2.0)
    return statistics.median(losses[-max(FEWEST, len(losses) // 2) :]), spread
