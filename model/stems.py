"""Front ends of the trunk: patches of pixels and pieces of sound become encoder positions.

A stem is one linear map plus positions that have no parameters, so a modality can be added,
frozen or replaced without touching the trunk. Images and videos share one stem: an image is a
video of one frame. Patches come one per row, whatever the size of the picture they were cut from.
Text needs no stem but the embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig


def wave(positions: Tensor, width: int) -> Tensor:
    """Return sine and cosine positions: (n,) -> (n, width); `width` is even."""
    half = width // 2
    rates = 10_000.0 ** (-torch.arange(half, device=positions.device) / half)
    angles = positions[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


class VisionStem(nn.Module):
    """Patches of RGB frames, each placed in time, height and width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.patch_features, config.d_model, bias=False)

    def forward(self, patches: Tensor, places: Tensor) -> Tensor:
        """Return (n, d_model) of patches (n, 3 * patch**2) in [-1, 1].

        `places` (n, 3) says frame, row and column, counted in patches; each gets a quarter of the
        width, the last quarter stays without position.
        """
        features: Tensor = self.project(patches.to(self.project.weight.dtype))
        quarter = features.shape[-1] // 4
        waves = [wave(axis, quarter) for axis in places.unbind(-1)]
        rest = features.new_zeros(len(features), features.shape[-1] - 3 * quarter)
        return features + torch.cat([*(w.to(features.dtype) for w in waves), rest], -1)

    def nothing(self) -> Tensor:
        """Return features of one empty patch: a use of the weights that says nothing."""
        weight = self.project.weight
        return self.forward(weight.new_zeros(1, weight.shape[1]), weight.new_zeros(1, 3))


class AudioStem(nn.Module):
    """Log-mel frames, a few of them behind each encoder position."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.audio_features, config.d_model, bias=False)

    def forward(self, pieces: Tensor, places: Tensor) -> Tensor:
        """Return (n, d_model) of pieces (n, mels * stride); `places` (n,) counts from a start."""
        features: Tensor = self.project(pieces.to(self.project.weight.dtype))
        return features + wave(places, features.shape[-1]).to(features.dtype)

    def nothing(self) -> Tensor:
        """Return features of one piece of silence: a use of the weights that says nothing."""
        weight = self.project.weight
        return self.forward(weight.new_zeros(1, weight.shape[1]), weight.new_zeros(1))
