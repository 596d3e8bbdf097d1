"""Samples: what the encoder reads and what the decoder must answer, and batches of them.

Two tasks, both with text out: *describe* a picture in a language, and *restore* a caption of which
a span is hidden behind a sentinel (UL2's denoising, on text alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model import tokenizer
from model.config import IMAGE, TEXT, ModelConfig
from model.data import order, render
from model.data.emoji import SPRITE, Captioned
from model.transformer import Prompt

IGNORED = -100  #: a target that cross-entropy skips
ANSWER_TOKENS_MAX = 48  #: longer captions are cut; in English none is


@dataclass(frozen=True)
class Sample:
    """One prompt and its answer."""

    prompt: tuple[int, ...]
    kinds: tuple[int, ...]
    answer: tuple[int, ...]  #: without the end token
    picture: render.Picture | None


@dataclass(frozen=True)
class Batch:
    """Samples side by side, padded."""

    prompt: Prompt
    inputs: Tensor  #: (batch, length) the end token, then the answer
    targets: Tensor  #: (batch, length) the answer, then the end token; `IGNORED` at padding
    positions: int  #: positions that are no padding, encoder and decoder together
    predicted: int  #: targets that count


def describe(item: Captioned, picture: render.Picture, config: ModelConfig) -> Sample:
    """Ask for the name of a picture in the item's language."""
    patches = (SPRITE // config.patch) ** 2
    language = tokenizer.load().encode_ordinary(item.language)
    opening, closing = tokenizer.special("<image>"), tokenizer.special("</image>")
    placeholders = [tokenizer.special("<|image_patch|>")] * patches
    return Sample(
        prompt=(opening, *placeholders, closing, *language),
        kinds=(TEXT, *[IMAGE] * patches, TEXT, *[TEXT] * len(language)),
        answer=_caption(item),
        picture=picture,
    )


def restore(item: Captioned, dice: np.random.Generator) -> Sample:
    """Hide a random span of the caption (at most half of it, rounded up) and ask for it."""
    tokens = _caption(item)
    length = int(dice.integers(1, (len(tokens) + 1) // 2 + 1))
    start = int(dice.integers(0, len(tokens) - length + 1))
    hidden = tokenizer.special("<extra_id_0>")
    language = tokenizer.load().encode_ordinary(item.language)
    prompt = (*language, *tokens[:start], hidden, *tokens[start + length :])
    answer = (hidden, *tokens[start : start + length])
    return Sample(prompt, (TEXT,) * len(prompt), answer, picture=None)


def _caption(item: Captioned) -> tuple[int, ...]:
    return tuple(tokenizer.load().encode_ordinary(item.caption)[:ANSWER_TOKENS_MAX])


@dataclass(frozen=True)
class Feed:
    """The training samples of every step."""

    items: Sequence[Captioned]
    config: ModelConfig
    batch: int  #: samples per step, of all ranks together
    data_seed: int
    text_share: float  #: of the samples: restored captions instead of described pictures

    def sample(self, step: int, index: int) -> Sample:
        """Return a sample of a step; the same on every rank of every gang."""
        position = (step - 1) * self.batch + index
        item = self.items[order.item_at(position, len(self.items), self.data_seed)]
        dice = order.sample_dice(self.data_seed, step, index)
        if dice.random() < self.text_share:
            return restore(item, dice)
        return describe(item, render.augmented(item.sprite, dice), self.config)

    def share(self, step: int, rank: int, world: int) -> Batch:
        """Return the part of a step's batch that this rank computes."""
        return collate([self.sample(step, i) for i in order.share(self.batch, rank, world)])


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples side by side."""
    end, padding = tokenizer.special(tokenizer.END), tokenizer.special(tokenizer.PADDING)
    pictures = [sample.picture for sample in samples if sample.picture is not None]
    lengths = torch.tensor([len(sample.prompt) for sample in samples])
    longest = int(lengths.max())
    present = torch.arange(longest) < lengths[:, None]
    prompt = Prompt(
        tokens=_padded([sample.prompt for sample in samples], padding),
        kinds=_padded([sample.kinds for sample in samples], TEXT),
        present=None if bool(present.all()) else present,
        images=torch.from_numpy(np.stack(pictures)) if pictures else None,
    )
    predicted = sum(len(sample.answer) + 1 for sample in samples)
    return Batch(
        prompt=prompt,
        inputs=_padded([(end, *sample.answer) for sample in samples], end),
        targets=_padded([(*sample.answer, end) for sample in samples], IGNORED),
        positions=int(lengths.sum()) + predicted,
        predicted=predicted,
    )


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
