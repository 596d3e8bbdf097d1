"""Where samples come from: each source is a list of items and a way to make a sample of one.

A source is pure: the item, the dice and the form decide the sample to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from model.curriculum import Stage
from model.data.emoji import select
from model.data.samples import Form, Sample


class Source(Protocol):
    """Makes samples of its items."""

    def __len__(self) -> int:
        """Items."""

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        """Return a sample of an item. Raises BadSampleError if there can be none."""


def of_stage(stage: Stage) -> dict[str, Source]:
    """Return the sources of a stage's mixture, in its order. Raises UserError for shards amiss."""
    return {name: _named(name, stage) for name in stage.mixture}


def _named(name: str, stage: Stage) -> Source:
    """Import only what the stage needs: a restart waits for it."""
    match name:
        case "pictures" | "groups" | "names":
            from model.data.sources import pictures

            return pictures.named(name, select(stage.subset, stage.languages), stage.objectives)
        case "motions":
            from model.data.sources.motions import Motions

            return Motions.of(held_out=False)
        case "numbers":
            from model.data.sources.numbers import Numbers

            return Numbers()
        case "passkeys":
            from model.data.sources.passkeys import Passkeys

            return Passkeys(stage.passkey_lengths)
        case _:
            from model.data.sources.documents import Documents

            return Documents.of(name.removeprefix("shards/"), stage)


def pick(weights: Mapping[str, float], dice: np.random.Generator) -> str:
    """Return one of the names, each as often as its weight says."""
    names: Sequence[str] = tuple(weights)
    scale = np.array([weights[name] for name in names])
    return names[int(dice.choice(len(names), p=scale / scale.sum()))]
