"""The encoder-decoder: text, images, video and audio in, text out.

A prompt is one sequence of positions in reading order. A position holds a token or a piece of a
medium, so interleaving is nothing special: `<image>` and `</image>` are ordinary tokens around the
patches. The encoder reads the prompt in both directions, the decoder writes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.attention import Norm, Rotary
from model.blocks import DecoderBlock, EncoderBlock
from model.config import AUDIO, IMAGE, KINDS, VIDEO, ModelConfig
from model.stems import AudioStem, VisionStem


@dataclass(frozen=True)
class Prompt:
    """A batch of prompts, right-padded to one length."""

    tokens: Tensor  #: (batch, length) ids; at a medium's positions its placeholder, not looked up
    kinds: Tensor  #: (batch, length) index into `config.KINDS`: what each position holds
    present: Tensor | None = None  #: (batch, length) False at padding; None without padding
    images: Tensor | None = None  #: (n, 3, height, width) in [-1, 1], in reading order
    videos: Tensor | None = None  #: (n, frames, 3, height, width)
    audio: Tensor | None = None  #: (n, frames, mels)


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

    def forward(self, prompt: Prompt, answer: Tensor) -> Tensor:
        """Return logits (batch, length of answer, vocabulary) for the token after each."""
        return self.decode(answer, self.encode(prompt))

    def encode(self, prompt: Prompt) -> Memory:
        """Read prompts. Raises ValueError if media and their positions do not match."""
        x = self._embed(prompt)
        rotary = self._rotary(x, self.config.encoder_theta)
        mask = None if prompt.present is None else prompt.present[:, None, None, :]
        for block in self.encoder:
            x = block(x, rotary, mask)
        return Memory(self.encoder_norm(x), mask)

    def decode(self, answer: Tensor, memory: Memory) -> Tensor:
        """Return logits for the token after each of `answer` (batch, length)."""
        x = self.embedding(answer)
        rotary = self._rotary(x, self.config.decoder_theta)
        for block in self.decoder:
            x = block(x, rotary, memory.states, memory.mask)
        logits: Tensor = self.head(self.decoder_norm(x))
        return logits

    def _rotary(self, x: Tensor, theta: float) -> Rotary:
        positions = torch.arange(x.shape[1], device=x.device)
        return Rotary.of(positions, self.config.head_dim, theta)

    def _embed(self, prompt: Prompt) -> Tensor:
        """Return what each position holds, plus the embedding of its kind."""
        x: Tensor = self.embedding(prompt.tokens)
        for kind, features in self._media(prompt):
            places = prompt.kinds == kind
            rows = features.flatten(0, 1)
            if int(places.sum()) != len(rows):
                raise ValueError(
                    f"{int(places.sum())} {KINDS[kind]} positions in the prompt, "
                    f"but its media have {len(rows)}"
                )
            x = x.masked_scatter(places[..., None], rows.to(x.dtype))
        out: Tensor = x + self.kind(prompt.kinds)
        return out

    def _media(self, prompt: Prompt) -> list[tuple[int, Tensor]]:
        media = []
        if prompt.images is not None:
            media.append((IMAGE, self.vision(prompt.images[:, None])))
        if prompt.videos is not None:
            media.append((VIDEO, self.vision(prompt.videos)))
        if prompt.audio is not None:
            media.append((AUDIO, self.audio(prompt.audio)))
        return media


def build(config: ModelConfig, seed: int) -> EncoderDecoder:
    """Return a freshly initialised model on the CPU; the same seed gives the same bits.

    Not built on the meta device first: torch 2.13 would import its compiler for it, 1.5 s.
    """
    model = EncoderDecoder(config)
    generator = torch.Generator().manual_seed(seed)
    depth = config.encoder_layers + config.decoder_layers
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            looked_up = name.startswith(("embedding.", "kind."))
            deviation = (config.d_model if looked_up else parameter.shape[1]) ** -0.5
            if name.endswith(("out.weight", "down.weight")):  # what adds to the residual stream
                deviation *= depth**-0.5
            parameter.normal_(0.0, deviation, generator=generator)
    return model
