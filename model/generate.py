"""Greedy answers: the likeliest token, one after another."""

from __future__ import annotations

import torch

from model import tokenizer
from model.data.samples import ANSWER_TOKENS_MAX
from model.transformer import EncoderDecoder, Prompt


@torch.no_grad()
def answer(model: EncoderDecoder, prompt: Prompt) -> list[str]:
    """Return the text that the model answers to each prompt of a batch."""
    end = tokenizer.special(tokenizer.END)
    memory = model.encode(prompt)
    written = torch.full((len(prompt.tokens), 1), end)
    finished = torch.zeros(len(written), dtype=torch.bool)
    for _ in range(ANSWER_TOKENS_MAX):
        likeliest = model.decode(written, memory)[:, -1].argmax(-1)
        written = torch.cat([written, likeliest[:, None]], 1)
        finished |= likeliest == end
        if bool(finished.all()):
            break
    return [_text(row, end) for row in written[:, 1:].tolist()]


def _text(ids: list[int], end: int) -> str:
    until = ids.index(end) if end in ids else len(ids)
    return tokenizer.load().decode(ids[:until])
