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
    from model.data.sources.documents import Documents  # here: they import this file
    from model.data.sources.motions import Motions
    from model.data.sources.numbers import Numbers
    from model.data.sources.passkeys import Passkeys
    from model.data.sources.pictures import Groups, Names, Pictures

    captioned = select(stage.subset, stage.languages)
    match name:
        case "pictures":
            return Pictures(captioned)
        case "groups":
            return Groups(captioned)
        case "names":
            return Names(captioned, stage.objectives)
        case "motions":
            return Motions.of(held_out=False)
        case "numbers":
            return Numbers()
        case "passkeys":
            return Passkeys(stage.passkey_lengths)
        case _:
            return Documents.of(name.removeprefix("shards/"), stage)


def pick(weights: Mapping[str, float], dice: np.random.Generator) -> str:
    """Return one of the names, each as often as its weight says."""
    names: Sequence[str] = tuple(weights)
    scale = np.array([weights[name] for name in names])
    return names[int(dice.choice(len(names), p=scale / scale.sum()))]
