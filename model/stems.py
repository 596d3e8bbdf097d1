"""Front ends of the trunk: patches of pixels and frames of sound become encoder positions.

A stem is one linear map plus positions that have no parameters, so a modality can be added,
frozen or replaced without touching the trunk. Images and videos share one stem: an image is a
video of one frame. Text needs no stem but the embedding.
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
        self.patch = config.patch
        self.project = nn.Linear(config.patch_features, config.d_model, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (n, frames * rows * columns, d_model).

        `frames` is (n, frames, 3, height, width) in [-1, 1]; height and width are multiples of
        the patch, else ValueError.
        """
        side = self.patch
        n, times, _, height, width = frames.shape
        if height % side or width % side:
            raise ValueError(f"{height}x{width} pixels do not divide into {side}x{side} patches")
        grid = frames.reshape(n, times, 3, height // side, side, width // side, side)
        patches = grid.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)  # n, times, rows, columns, numbers
        features: Tensor = self.project(patches)
        return (features + self._places(features)).reshape(n, -1, features.shape[-1])

    @staticmethod
    def _places(features: Tensor) -> Tensor:
        """Return a quarter of the width each for time, row, column; the last stays zero."""
        _, times, rows, columns, d_model = features.shape
        quarter = d_model // 4
        grid = features.new_zeros(times, rows, columns, d_model)
        for axis, count in enumerate((times, rows, columns)):
            shape = [1, 1, 1, quarter]
            shape[axis] = count
            places = wave(torch.arange(count, device=features.device), quarter)
            grid[..., axis * quarter : (axis + 1) * quarter] = places.view(shape)
        return grid


class AudioStem(nn.Module):
    """Log-mel frames, a few of them behind each encoder position."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.stride = config.audio_stride
        self.project = nn.Linear(config.audio_features, config.d_model, bias=False)

    def forward(self, mels: Tensor) -> Tensor:
        """Return (n, frames // stride, d_model) of (n, frames, mels); a short rest is dropped."""
        whole = mels.shape[1] // self.stride * self.stride
        joined = mels[:, :whole].reshape(len(mels), whole // self.stride, -1)
        features: Tensor = self.project(joined)
        places = wave(torch.arange(features.shape[1], device=mels.device), features.shape[2])
        return features + places.to(features.dtype)
