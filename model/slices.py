"""Which positions of a sequence this process computes: all of them, or a slice of equal length.

Context parallelism gives each rank a slice of every sequence; keys and values are gathered in
`attention`, everything else works on the slice alone. A rank without company computes the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Slice:
    """Part `rank` of `world` equal parts."""

    rank: int = 0
    world: int = 1

    def of(self, x: Tensor, dim: int) -> Tensor:
        """Return this part of `x` along a dimension. Raises ValueError if it does not divide."""
        if self.world == 1:
            return x
        length = x.shape[dim]
        if length % self.world:
            raise ValueError(f"{length} positions do not divide into {self.world} slices")
        size = length // self.world
        return x.narrow(dim, self.rank * size, size)

    def causal(self, length: int, device: torch.device) -> Tensor | None:
        """Return which positions each of the slice may look back at, (1, 1, slice, length).

        None for the whole sequence: attention then knows a quicker way.
        """
        if self.world == 1:
            return None
        positions = torch.arange(length, device=device)
        return (positions[None, :] <= self.of(positions, 0)[:, None])[None, None]


WHOLE = Slice()
