"""How much was learned: captions written exactly as they should be, letter by letter.

The objects are those of training; the *renderings* are not: random ones from dice that training
never throws, and clean ones. It measures recognition, not naming of objects never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.data import order, render
from model.data.emoji import Captioned
from model.data.samples import collate, describe
from model.generate import answer
from model.transformer import EncoderDecoder

_BATCH = 64


@dataclass(frozen=True)
class Score:
    """Shares of exact captions, 0 to 1."""

    sprites: int
    exact_augmented: float  #: on unseen random renderings
    exact_clean: float  #: on the sprite as it is, before white


def evaluate(
    model: EncoderDecoder, items: Sequence[Captioned], count: int, data_seed: int
) -> Score:
    """Describe `count` of the items (all, if fewer), spread evenly, in both renderings."""
    count = min(count, len(items))
    asked = [items[index * len(items) // count] for index in range(count)]
    unseen = [render.augmented(i.sprite, order.held_out_dice(data_seed, i.sprite)) for i in asked]
    plain = [render.clean(item.sprite) for item in asked]
    return Score(count, _exact(model, asked, unseen), _exact(model, asked, plain))


def _exact(
    model: EncoderDecoder, items: Sequence[Captioned], pictures: Sequence[render.Picture]
) -> float:
    hits = 0
    for start in range(0, len(items), _BATCH):
        asked = items[start : start + _BATCH]
        shown = pictures[start : start + _BATCH]
        samples = [describe(i, p, model.config) for i, p in zip(asked, shown, strict=True)]
        answers = answer(model, collate(samples).prompt)
        hits += sum(a == item.caption for a, item in zip(answers, asked, strict=True))
    return hits / len(items)
