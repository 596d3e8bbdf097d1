"""Samples: what the encoder reads and what the decoder must answer, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.config import AUDIO, IMAGE, TEXT, VIDEO, ModelConfig
from model.media.medium import BadSampleError, Medium
from model.tokenizer import END, PADDING, Tokenizer
from model.transformer import Pieces, Prompt

IGNORED = -100  #: a target that cross-entropy skips
ANSWER_TOKENS_MAX = 48  #: longer answers are cut; of the English captions none is
#: The tokens around a medium and the one that holds each of its positions.
_AROUND = {
    IMAGE: ("<image>", "<|image_patch|>", "</image>"),
    VIDEO: ("<video>", "<|video_patch|>", "</video>"),
    AUDIO: ("<audio>", "<|audio_frames|>", "</audio>"),
}


@dataclass(frozen=True)
class Form:
    """What the samples of a stage look like."""

    config: ModelConfig
    tokenizer: Tokenizer
    prompt_max: int  #: positions of a prompt; longer ones are refused, or cut where text is
    answer_max: int = ANSWER_TOKENS_MAX  #: tokens of an answer, without the end token


@dataclass(frozen=True)
class Sample:
    """One prompt and its answer."""

    prompt: tuple[int, ...]
    kinds: tuple[int, ...]
    answer: tuple[int, ...]  #: without the end token
    media: tuple[Medium, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Samples side by side, padded."""

    prompt: Prompt
    inputs: Tensor  #: (batch, length) the end token, then the answer
    targets: Tensor  #: (batch, length) the answer, then the end token; `IGNORED` at padding
    positions: int  #: positions that are no padding, encoder and decoder together
    predicted: int  #: targets that count

    def to(self, device: torch.device) -> Batch:
        """Return the same on a device."""
        inputs, targets = self.inputs.to(device), self.targets.to(device)
        return replace(self, prompt=self.prompt.to(device), inputs=inputs, targets=targets)


def sample(form: Form, parts: Sequence[Sequence[int] | Medium], answer: Sequence[int]) -> Sample:
    """Interleave text and media in one prompt. Raises BadSampleError if it is too long."""
    prompt: list[int] = []
    kinds: list[int] = []
    for part in parts:
        if isinstance(part, Medium):
            opening, held, closing = map(form.tokenizer.special, _AROUND[part.kind])
            prompt += [opening, *[held] * len(part), closing]
            kinds += [TEXT, *[part.kind] * len(part), TEXT]
        else:
            prompt += part
            kinds += [TEXT] * len(part)
    if len(prompt) > form.prompt_max:
        said = f"a prompt of {len(prompt):,} positions; this stage reads {form.prompt_max:,}"
        raise BadSampleError("too-long", said)
    media = tuple(part for part in parts if isinstance(part, Medium))
    return Sample(tuple(prompt), tuple(kinds), tuple(answer[: form.answer_max]), media)


def collate(samples: Sequence[Sample], tokenizer: Tokenizer, multiple: int = 1) -> Batch:
    """Put samples side by side; lengths become multiples of `multiple` (for slices of them)."""
    end, padding = tokenizer.special(END), tokenizer.special(PADDING)
    lengths = torch.tensor([len(one.prompt) for one in samples])
    longest = _up(int(lengths.max()), multiple)
    present = torch.arange(longest) < lengths[:, None]
    answers = _up(max(len(one.answer) for one in samples) + 1, multiple)
    prompt = Prompt(
        tokens=_padded([one.prompt for one in samples], padding, longest),
        kinds=_padded([one.kinds for one in samples], TEXT, longest),
        present=None if bool(present.all()) else present,
        vision=_pieces(samples, longest, lambda kind: kind in (IMAGE, VIDEO)),
        sound=_pieces(samples, longest, lambda kind: kind == AUDIO),
    )
    predicted = sum(len(one.answer) + 1 for one in samples)
    return Batch(
        prompt=prompt,
        inputs=_padded([(end, *one.answer) for one in samples], end, answers),
        targets=_padded([(*one.answer, end) for one in samples], IGNORED, answers),
        positions=int(lengths.sum()) + predicted,
        predicted=predicted,
    )


def _pieces(samples: Sequence[Sample], length: int, taken: Callable[[int], bool]) -> Pieces | None:
    media = [medium for one in samples for medium in one.media if taken(medium.kind)]
    if not media:
        return None
    at = [
        row * length + column
        for row, one in enumerate(samples)
        for column, kind in enumerate(one.kinds)
        if taken(kind)
    ]
    return Pieces(
        rows=torch.from_numpy(np.concatenate([medium.rows for medium in media])),
        places=torch.from_numpy(np.concatenate([medium.places for medium in media])),
        at=torch.tensor(at),
    )


def _padded(rows: Sequence[Sequence[int]], filler: int, length: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
