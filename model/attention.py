"""Grouped-query attention with QK-norm, and the rotary positions of self-attention.

Keys and queries are RMS-normed per head before they meet: it keeps logits bounded at the high
learning rates that small models like. Several query heads share one key-value head, which is what
makes a decoder's cache small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig
from model.kernels import mix


@dataclass(frozen=True)
class Rotary:
    """The rotation of every position, computed once per forward pass and shared by all layers."""

    cos: Tensor  #: (positions, head_dim / 2), or (batch, 1, positions, head_dim / 2)
    sin: Tensor

    @classmethod
    def of(cls, positions: Tensor, head_dim: int, theta: float) -> Rotary:
        """Return the rotations of `positions` (1-D); `theta` is RoPE's base."""
        steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
        angles = positions[:, None].float() * theta ** (-steps / head_dim)
        return cls(angles.cos(), angles.sin())

    def turn(self, heads: Tensor) -> Tensor:
        """Rotate (batch, heads, positions, head_dim)."""
        cos, sin = self.cos.to(heads.dtype), self.sin.to(heads.dtype)
        left, right = heads.chunk(2, -1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


class Norm(nn.RMSNorm):
    """RMSNorm in the precision of its input: with a weight of another, torch takes a slow path."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`."""
        assert self.weight is not None
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


@dataclass(frozen=True)
class Seen:
    """The keys and values that queries look at."""

    keys: Tensor  #: (batch, kv_heads, length, head_dim), normed and turned
    values: Tensor  #: (batch, kv_heads, length, head_dim)


class Attention(nn.Module):
    """Attention of queries over what was `seen`: their own sequence, or another."""

    #: Puts the parts of a sequence together whose positions are spread over ranks; see `parallel`.
    gather: Callable[[Tensor], Tensor] | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, head_dim = config.d_model, config.head_dim
        self.head_dim = head_dim
        self.query = nn.Linear(d, config.heads * head_dim, bias=False)
        self.key = nn.Linear(d, config.kv_heads * head_dim, bias=False)
        self.value = nn.Linear(d, config.kv_heads * head_dim, bias=False)
        self.out = nn.Linear(config.heads * head_dim, d, bias=False)
        self.query_norm = Norm(head_dim, config.norm_epsilon)
        self.key_norm = Norm(head_dim, config.norm_epsilon)

    def forward(
        self,
        queries: Tensor,
        source: Tensor,
        *,
        rotary: Rotary | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Return (batch, length of queries, d_model).

        `mask` is boolean, broadcastable to (batch, heads, queries, source), True where a query may
        look. Cross-attention passes no `rotary`: two sequences have no common order.
        """
        seen = self.see(source, rotary)
        return self.attend(queries, seen, rotary=rotary, mask=mask, causal=causal)

    def see(self, source: Tensor, rotary: Rotary | None = None) -> Seen:
        """Return the keys and values of (batch, length, d_model); what a cache holds."""
        keys = self.key_norm(self._heads(self.key(source)))
        values = self._heads(self.value(source))
        if rotary is not None:
            keys = rotary.turn(keys)
        if self.gather is not None:
            keys, values = self.gather(keys), self.gather(values)
        return Seen(keys, values)

    def attend(
        self,
        queries: Tensor,
        seen: Seen,
        *,
        rotary: Rotary | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Return (batch, length of queries, d_model); arguments as in `forward`."""
        query = self.query_norm(self._heads(self.query(queries)))
        if rotary is not None:
            query = rotary.turn(query)
        mixed = mix(query, seen.keys, seen.values, mask, causal)
        joined: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, projected: Tensor) -> Tensor:
        batch, length, _ = projected.shape
        return projected.view(batch, length, -1, self.head_dim).transpose(1, 2)
