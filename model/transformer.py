"""The encoder-decoder: text, images, video and audio in, text out.

A prompt is one sequence of positions in reading order. A position holds a token or a piece of a
medium, so interleaving is nothing special: `<image>` and `</image>` are ordinary tokens around the
patches. The encoder reads the prompt in both directions, the decoder writes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.attention import Norm, Rotary
from model.blocks import DecoderBlock, EncoderBlock
from model.config import KINDS, ModelConfig
from model.slices import WHOLE, Slice
from model.stems import AudioStem, VisionStem


@dataclass(frozen=True)
class Pieces:
    """The pieces of all media of one stem in a batch, in reading order."""

    rows: Tensor  #: (n, features): patches of pixels, or log-mel frames
    places: Tensor  #: (n, 3) frame, row, column of a patch; (n,) of a piece of sound
    at: Tensor  #: (n,) which position of the flattened (batch, length) each one fills

    def __post_init__(self) -> None:
        """Refuse pieces without a position, or the reverse; raises ValueError."""
        if not len(self.rows) == len(self.places) == len(self.at):
            raise ValueError(
                f"{len(self.at)} positions in the prompt, but its media have {len(self.rows)} "
                f"pieces and {len(self.places)} places"
            )

    def to(self, device: torch.device) -> Pieces:
        """Return the same on a device."""
        return Pieces(*(one.to(device) for one in (self.rows, self.places, self.at)))


@dataclass(frozen=True)
class Prompt:
    """A batch of prompts, right-padded to one length."""

    tokens: Tensor  #: (batch, length) ids; at a medium's positions its placeholder, not looked up
    kinds: Tensor  #: (batch, length) index into `config.KINDS`: what each position holds
    present: Tensor | None = None  #: (batch, length) False at padding; None without padding
    vision: Pieces | None = None  #: patches of images and of video frames
    sound: Pieces | None = None

    def to(self, device: torch.device) -> Prompt:
        """Return the same on a device."""
        parts = (self.tokens, self.kinds, self.present, self.vision, self.sound)
        return Prompt(*(None if one is None else one.to(device) for one in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Memory:
    """An encoded prompt, which the decoder looks at."""

    states: Tensor  #: (batch, length, d_model)
    mask: Tensor | None  #: (batch, 1, 1, length) True where there is something to look at


class EncoderDecoder(nn.Module):
    """One trunk for all modalities; see `config` for its size."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        #: RoPE bases: those of the configuration, until a stage of the curriculum changes them.
        self.encoder_theta, self.decoder_theta = config.encoder_theta, config.decoder_theta
        self.slice: Slice = WHOLE  #: which positions this rank computes
        #: Run stems without media as well, so that all ranks of a sharded gang agree on what has a
        #: gradient; adds zero.
        self.stems_always = False
        self.recompute = False  #: compute a block's activations again in backward, keep none
        d, epsilon = config.d_model, config.norm_epsilon
        self.embedding = nn.Embedding(config.vocabulary, d)
        self.kind = nn.Embedding(len(KINDS), d)
        self.vision = VisionStem(config)
        self.audio = AudioStem(config)
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.encoder_norm = Norm(d, epsilon)
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        self.decoder_norm = Norm(d, epsilon)
        self.head = nn.Linear(d, config.vocabulary, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight

    @property
    def device(self) -> torch.device:
        """Where the weights are, and prompts must be."""
        return self.embedding.weight.device

    def forward(self, prompt: Prompt, answer: Tensor) -> Tensor:
        """Return logits (batch, length of answer, vocabulary) for the token after each."""
        return self.decode(answer, self.encode(prompt))

    def encode(self, prompt: Prompt) -> Memory:
        """Read prompts. Under a `slice`, the states are those of its positions only."""
        x = self._embed(prompt)
        rotary = self._rotary(x.shape[1], x.device, self.encoder_theta)
        mask = None if prompt.present is None else prompt.present[:, None, None, :]
        x = self.slice.of(x, 1)
        for block in self.encoder:
            x = self._through(block, x, rotary, mask)
        return Memory(self.encoder_norm(x), mask)

    def decode(self, answer: Tensor, memory: Memory) -> Tensor:
        """Return logits for the token after each of `answer` (batch, length)."""
        x = self.embedding(answer)
        length = x.shape[1]
        rotary = self._rotary(length, x.device, self.decoder_theta)
        past = self.slice.causal(length, x.device)
        x = self.slice.of(x, 1)
        for block in self.decoder:
            x = self._through(block, x, rotary, memory.states, memory.mask, past)
        logits: Tensor = self.head(self.decoder_norm(x))
        return logits

    def _through(self, block: nn.Module, *inputs: Any) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            again: Tensor = checkpoint(
                block, *inputs, use_reentrant=False, preserve_rng_state=False
            )
            return again
        out: Tensor = block(*inputs)
        return out

    def _rotary(self, length: int, device: torch.device, theta: float) -> Rotary:
        positions = self.slice.of(torch.arange(length, device=device), 0)
        return Rotary.of(positions, self.config.head_dim, theta)

    def _embed(self, prompt: Prompt) -> Tensor:
        """Return what each position holds, plus the embedding of its kind."""
        x: Tensor = self.embedding(prompt.tokens)
        shape = x.shape
        for stem, pieces in ((self.vision, prompt.vision), (self.audio, prompt.sound)):
            if pieces is not None:
                rows = stem(pieces.rows, pieces.places).to(x.dtype)
                x = x.flatten(0, 1).index_copy(0, pieces.at, rows).view(shape)
            elif self.stems_always:
                x = x + 0.0 * stem.nothing().sum()
        out: Tensor = x + self.kind(prompt.kinds)
        return out


def build(config: ModelConfig, seed: int) -> EncoderDecoder:
    """Return a freshly initialised model on the CPU; the same seed gives the same bits.

    Not built on the meta device first: torch 2.13 would import its compiler for it, 1.5 s.
    """
    model = EncoderDecoder(config)
    initialise(model, seed)
    return model


@torch.no_grad()
def initialise(model: EncoderDecoder, seed: int) -> None:
    """Draw every parameter anew, in the order of their names in the model."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(draw(name, parameter.shape, model.config, generator))


def draw(name: str, shape: torch.Size, config: ModelConfig, generator: torch.Generator) -> Tensor:
    """Return the first value of a parameter, on the CPU: normal for matrices, ones for norms."""
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.empty(shape).normal_(0.0, deviation(name, shape, config), generator=generator)


def deviation(name: str, shape: torch.Size, config: ModelConfig) -> float:
    """Return the standard deviation that a matrix begins with."""
    looked_up = name.startswith(("embedding.", "kind."))
    spread: float = (config.d_model if looked_up else shape[1]) ** -0.5
    if name.endswith(("out.weight", "down.weight")):  # what adds to the residual stream
        spread *= (config.encoder_layers + config.decoder_layers) ** -0.5
    return spread
