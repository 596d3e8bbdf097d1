"""Numbers hidden in filler: whether a model sees its whole context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.data import objectives
from model.data.samples import Form, Sample

_ITEMS = 10_000


@dataclass(frozen=True)
class Passkeys:
    """*passkey*: lengths in turn, a random depth, a number drawn for the sample."""

    lengths: tuple[int, ...]

    def __len__(self) -> int:
        """As many as one pass; the dice make each of them new."""
        return _ITEMS

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        """Return filler with a number in it, and the number."""
        length = self.lengths[item % len(self.lengths)]
        return objectives.passkey(form, length, float(dice.uniform()), dice)
