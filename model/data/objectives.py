"""What is asked of a sample: each function makes a prompt and its answer.

*prefix* and *span* need nothing but text: the first is UL2's S-denoiser, the second T5's span
corruption, whose rate and mean length also make UL2's R (0.15, 3) and X (0.5, 32) denoisers. The
others pair a prompt with the text that answers it. All randomness comes from the given dice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from model.curriculum import TEXT_OBJECTIVES
from model.data.samples import Form, Sample, sample
from model.media.medium import BadSampleError, Medium
from model.tokenizer import SENTINELS

R_RATE, R_MEAN = 0.15, 3.0
X_RATE, X_MEAN = 0.5, 32.0
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
QUESTION = "What is the pass key?"
KEY_DIGITS = 5


def prefix(form: Form, tokens: Sequence[int], dice: np.random.Generator) -> Sample:
    """Show the beginning of a text, ask for the rest."""
    _refuse_short(tokens)
    last = min(len(tokens) - 1, form.prompt_max)
    split = int(dice.integers(1, last + 1))
    return sample(form, [tokens[:split]], tokens[split:])


def span(
    form: Form, tokens: Sequence[int], dice: np.random.Generator, *, rate: float, mean: float
) -> Sample:
    """Hide spans behind sentinels and ask for them.

    About `rate` of the tokens is hidden, in spans of `mean` tokens on average (at least one span,
    at most as many as there are sentinels). The answer is each sentinel and what it hides.
    """
    _refuse_short(tokens)
    tokens = tokens[: form.prompt_max]
    hidden = min(len(tokens) - 1, max(1, round(rate * len(tokens))))
    count = min(SENTINELS, max(1, round(hidden / mean)), hidden, len(tokens) - hidden)
    lengths = _composition(hidden, count, dice)
    gaps = _composition(len(tokens) - hidden + 1, count + 1, dice)  # the last may be empty
    prompt: list[int] = []
    answer: list[int] = []
    at = 0
    for number, (gap, length) in enumerate(zip(gaps, lengths, strict=False)):
        sentinel = form.tokenizer.special(f"<extra_id_{number}>")
        prompt += [*tokens[at : at + gap - (number == 0)], sentinel]
        at += gap - (number == 0)
        answer += [sentinel, *tokens[at : at + length]]
        at += length
    return sample(form, [[*prompt, *tokens[at:]]], answer)


def text(form: Form, tokens: Sequence[int], dice: np.random.Generator, objective: str) -> Sample:
    """Make a sample of text by one of `TEXT_OBJECTIVES`, of a window that fits the stage."""
    window = form.prompt_max if objective == "span-r" else form.prompt_max + form.answer_max
    if objective == "span-x":
        window = min(window, round(form.answer_max / X_RATE))
    if len(tokens) > window:
        start = int(dice.integers(0, len(tokens) - window + 1))
        tokens = tokens[start : start + window]
    match objective:
        case "prefix":
            return prefix(form, tokens, dice)
        case "span-r":
            return span(form, tokens, dice, rate=R_RATE, mean=R_MEAN)
        case "span-x":
            return span(form, tokens, dice, rate=X_RATE, mean=X_MEAN)
        case _:
            raise ValueError(f"{objective!r} is none of {TEXT_OBJECTIVES}")


def caption(form: Form, media: Sequence[Medium], language: str, answer: str) -> Sample:
    """Show pictures or a video and ask what they show, in a language."""
    encode = form.tokenizer.encode
    return sample(form, [*media, encode(language)], encode(answer))


def transcribe(form: Form, sound: Medium, answer: str) -> Sample:
    """Play a sound and ask for the words; nothing tells the language."""
    mark = form.tokenizer.special("<transcript>")
    return sample(form, [sound, [mark]], form.tokenizer.encode(answer))


def question(form: Form, media: Sequence[Medium], asked: str, answer: str) -> Sample:
    """Show media, then ask a question about them."""
    encode = form.tokenizer.encode
    return sample(form, [*media, encode(asked)], encode(answer))


def passkey(form: Form, length: int, depth: float, dice: np.random.Generator) -> Sample:
    """Hide a number in filler of `length` positions at a depth from 0 to 1, and ask for it.

    The needle-in-a-haystack of Mohtashami and Jaggi (2023). Raises BadSampleError if `length`
    cannot hold needle and question.
    """
    encode = form.tokenizer.encode
    key = "".join(map(str, dice.integers(0, 10, KEY_DIGITS)))
    needle, asked = encode(f" The pass key is {key}. Remember it."), encode(f" {QUESTION}")
    room = length - len(needle) - len(asked)
    if room < 1:
        raise BadSampleError("too-short", f"{length} positions cannot hold a pass key")
    phrase = encode(f" {FILLER}")
    start = int(dice.integers(0, len(phrase)))
    filler = [phrase[(start + index) % len(phrase)] for index in range(room)]
    at = round(depth * room)
    return sample(form, [filler[:at], needle, filler[at:], asked], encode(key))


def _refuse_short(tokens: Sequence[int]) -> None:
    if len(tokens) < 2:
        raise BadSampleError("too-short", f"a text of {len(tokens)} tokens cannot be split")


def _composition(total: int, parts: int, dice: np.random.Generator) -> list[int]:
    """Return `parts` positive whole numbers that add up to `total`, all such lists alike."""
    cuts = np.sort(dice.choice(total - 1, parts - 1, replace=False)) + 1
    edges = [0, *map(int, cuts), total]
    return [after - before for before, after in pairwise(edges)]
