"""The one block that both stacks are made of: pre-RMSNorm, attention, SwiGLU; no biases."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from model.attention import Attention, Norm, Rotary
from model.config import ModelConfig


class FeedForward(nn.Module):
    """SwiGLU: a gated feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`."""
        widened: Tensor = functional.silu(self.gate(x)) * self.up(x)
        narrowed: Tensor = self.down(widened)
        return narrowed


class EncoderBlock(nn.Module):
    """Every position looks at every other."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = Norm(config.d_model, config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = Norm(config.d_model, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor | None) -> Tensor:
        """Return a tensor of the shape of `x`; `mask` hides padding."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, rotary=rotary, mask=mask)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out


class DecoderBlock(nn.Module):
    """Every position looks back, then at the whole prompt."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = Norm(config.d_model, config.norm_epsilon)
        self.attention = Attention(config)
        self.cross_norm = Norm(config.d_model, config.norm_epsilon)
        self.cross_attention = Attention(config)
        self.feed_forward_norm = Norm(config.d_model, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        memory: Tensor,
        mask: Tensor | None,
        past: Tensor | None = None,
    ) -> Tensor:
        """Return a tensor of the shape of `x`; `memory` is the encoded prompt.

        `past` says which positions each may look back at; None: all up to its own.
        """
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, rotary=rotary, mask=past, causal=past is None)
        x = x + self.cross_attention(self.cross_norm(x), memory, mask=mask)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out
