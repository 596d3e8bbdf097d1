"""Answers, token by token: a cache of keys and values, many prompts at once, greedy or sampled.

The prompt is encoded once; its keys and values in every cross-attention are computed once. A batch
decodes in lockstep: rows that have ended are kept, their further tokens are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import Rotary, Seen
from model.blocks import DecoderBlock
from model.tokenizer import END, Tokenizer
from model.transformer import EncoderDecoder, Memory, Prompt


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0  #: 0: the likeliest token
    top_p: float = 1.0  #: of the likeliest tokens that together have this probability
    seed: int = 0


GREEDY = Sampling()


class Cache:
    """What every decoder layer has seen: its own past, and the prompt."""

    def __init__(self, model: EncoderDecoder, memory: Memory, tokens_max: int) -> None:
        self.length = 0  #: tokens decoded so far
        self._model = model
        self._mask = memory.mask
        self._blocks = [block for block in model.decoder if isinstance(block, DecoderBlock)]
        self._crossed = [block.cross_attention.see(memory.states) for block in self._blocks]
        shape = (len(memory.states), model.config.kv_heads, tokens_max, model.config.head_dim)
        empty = memory.states.new_zeros
        self._past = [(empty(shape), empty(shape)) for _ in self._blocks]

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Take one more token of each row, (batch,); return the logits of the one after."""
        model, at = self._model, self.length
        config = model.config
        x = model.embedding(tokens[:, None])
        positions = torch.tensor([at], device=tokens.device)
        rotary = Rotary.of(positions, config.head_dim, model.decoder_theta)
        for block, crossed, (keys, values) in zip(
            self._blocks, self._crossed, self._past, strict=True
        ):
            normed = block.attention_norm(x)
            seen = block.attention.see(normed, rotary)
            keys[:, :, at : at + 1], values[:, :, at : at + 1] = seen.keys, seen.values
            past = Seen(keys[:, :, : at + 1], values[:, :, : at + 1])
            x = x + block.attention.attend(normed, past, rotary=rotary)
            x = x + block.cross_attention.attend(block.cross_norm(x), crossed, mask=self._mask)
            x = x + block.feed_forward(block.feed_forward_norm(x))
        self.length += 1
        logits: Tensor = model.head(model.decoder_norm(x))[:, 0]
        return logits


@torch.no_grad()
def decode(
    model: EncoderDecoder,
    prompt: Prompt,
    tokenizer: Tokenizer,
    *,
    tokens_max: int,
    sampling: Sampling = GREEDY,
    until: Sequence[str] = (),
) -> list[list[int]]:
    """Return the ids answered to each prompt, without the end token.

    A row ends at the end token, after `tokens_max` tokens, or with a special token of `until`,
    which is kept. Each row's dice depend on the seed and its tokens so far, not on its neighbours.
    """
    end = tokenizer.special(END)
    device = prompt.tokens.device
    stops = torch.tensor([end, *map(tokenizer.special, until)], device=device)
    cache = Cache(model, model.encode(prompt), tokens_max)
    rows = len(prompt.tokens)
    dice = [torch.Generator().manual_seed(sampling.seed) for _ in range(rows)]
    written = torch.full((rows, tokens_max), end, device=device)
    token = torch.full((rows,), end, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    for at in range(tokens_max):
        token = _choose(cache.next_logits(token), sampling, dice)
        written[:, at] = torch.where(finished, end, token)
        finished |= torch.isin(token, stops)
        if bool(finished.all()):
            break
    return [_before(row, end) for row in written.tolist()]


def _choose(logits: Tensor, sampling: Sampling, dice: list[torch.Generator]) -> Tensor:
    if sampling.temperature == 0.0:
        return logits.argmax(-1)
    chances = (logits.cpu().float() / sampling.temperature).softmax(-1)  # where the dice are
    ordered, tokens = chances.sort(-1, descending=True)
    beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
    ordered = ordered.masked_fill(beyond, 0.0)
    thrown = torch.cat(
        [torch.multinomial(row, 1, generator=one) for row, one in zip(ordered, dice, strict=True)]
    )
    return tokens.gather(1, thrown[:, None])[:, 0].to(logits.device)


def _before(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row
