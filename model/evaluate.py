"""How much was learned: answers written exactly as they should be, letter by letter.

Pictures and sounds are those of training; their *renderings* are not: random ones from dice that
training never throws, and clean ones. That is recognition, not naming of things never seen. Only
the moving sprites ask for more: pairs of a sprite and a motion that were never shown together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from model.course import form_of
from model.curriculum import Stage
from model.data import objectives, order, render
from model.data.emoji import select
from model.data.samples import Form, Sample, collate
from model.data.sources import Source
from model.data.sources.motions import Motions
from model.data.sources.numbers import Numbers
from model.data.sources.pictures import Pictures
from model.decoding import decode
from model.settings import Settings
from model.transformer import EncoderDecoder

T = TypeVar("T")
_BATCH = 64
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
KEYS_PER_CELL = 20  #: pass keys asked for at each length and depth
_PICTURES, _NUMBERS, _MOTIONS, _KEYS = range(4)  # first words of the keys of held-out dice


def evaluate(model: EncoderDecoder, settings: Settings) -> dict[str, Any]:
    """Return the shares (0 to 1) of exact answers for each source of the last stage."""
    stage = settings.curriculum.stages[-1]
    form, count, seed = form_of(settings, stage), settings.evaluate, settings.data_seed
    known: Mapping[str, Callable[[], dict[str, Any]]] = {
        "pictures": lambda: pictures(model, form, stage, count, seed),
        "numbers": lambda: numbers(model, form, count, seed),
        "motions": lambda: motions(model, form, count, seed),
        "passkeys": lambda: {"passkeys": passkeys(model, form, beyond(stage), seed)},
    }
    said: dict[str, Any] = {}
    for name in stage.mixture:
        if name in known:
            said.update(known[name]())
    return said


def pictures(
    model: EncoderDecoder, form: Form, stage: Stage, count: int, seed: int
) -> dict[str, Any]:
    """Name `count` sprites (all, if fewer), spread evenly, in random and in clean renderings."""
    items = _spread(select(stage.subset, stage.languages), count)
    unseen = (render.augmented(i.sprite, _dice(seed, _PICTURES, i.sprite)) for i in items)
    plain = (render.clean(item.sprite) for item in items)

    def share(shown: Iterable[render.Picture]) -> float:
        pairs = zip(items, shown, strict=True)
        return exact(model, form, [Pictures.of(item, picture, form) for item, picture in pairs])

    return {
        "sprites": len(items),
        "exact_augmented": share(unseen),
        "exact_clean": share(plain),
    }


def numbers(model: EncoderDecoder, form: Form, count: int, seed: int) -> dict[str, Any]:
    """Write down `count` recordings, disturbed anew."""
    samples = _held_out(Numbers(), form, count, seed, _NUMBERS)
    return {"clips": len(samples), "exact_clips": exact(model, form, samples)}


def motions(model: EncoderDecoder, form: Form, count: int, seed: int) -> dict[str, Any]:
    """Say what moves how, in `count` of the pairs that training never showed."""
    samples = _held_out(Motions.of(held_out=True), form, count, seed, _MOTIONS)
    seen = _held_out(Motions.of(held_out=False), form, count, seed, _MOTIONS)
    return {
        "pairs": len(samples),
        "exact_unseen_pairs": exact(model, form, samples),
        "exact_seen_pairs": exact(model, form, seen),
    }


def beyond(stage: Stage) -> list[int]:
    """Return the lengths a table of pass keys has: parts and multiples of the longest trained."""
    longest = max(stage.passkey_lengths)
    return [longest // 2, longest, 2 * longest, 4 * longest]


def passkeys(
    model: EncoderDecoder, form: Form, lengths: Sequence[int], seed: int
) -> dict[str, dict[str, float]]:
    """Return the share of exact pass keys by length of the prompt, by depth in it."""
    table: dict[str, dict[str, float]] = {}
    for length in lengths:
        roomy = Form(form.config, form.tokenizer, length, form.answer_max)
        row = {}
        for column, depth in enumerate(DEPTHS):
            asked = [
                objectives.passkey(roomy, length, depth, _dice(seed, _KEYS, length, column, key))
                for key in range(KEYS_PER_CELL)
            ]
            row[f"{depth:.2f}"] = exact(model, roomy, asked)
        table[str(length)] = row
    return table


def exact(model: EncoderDecoder, form: Form, samples: Sequence[Sample]) -> float:
    """Return the share of the samples that are answered exactly, greedily decoded."""
    hits = 0
    waiting = iter(samples)
    while asked := list(islice(waiting, _BATCH)):
        prompt = collate(asked, form.tokenizer).prompt.to(model.device)
        longest = max(len(one.answer) for one in asked) + 1
        given = decode(model, prompt, form.tokenizer, tokens_max=longest)
        hits += sum(tuple(ids) == one.answer for ids, one in zip(given, asked, strict=True))
    return hits / len(samples)


def _held_out(source: Source, form: Form, count: int, seed: int, key: int) -> list[Sample]:
    items = _spread(range(len(source)), count)
    return [source.sample(item, _dice(seed, key, item), form) for item in items]


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return `count` of the items, evenly spread; all if there are fewer."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _dice(seed: int, *what: int) -> np.random.Generator:
    return order.held_out_dice(seed, *what)
