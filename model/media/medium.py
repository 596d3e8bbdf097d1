"""A medium as the model reads it, and the error for what cannot become one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError

Rows = NDArray[np.float32]


class BadSampleError(UserError):
    """A sample or file that cannot be used; training counts it by its `flaw` and goes on."""

    def __init__(self, flaw: str, message: str) -> None:
        super().__init__(message)
        self.flaw = flaw  #: one word, for counting: "corrupt-image"


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture, a video or a sound, cut into the pieces that fill one position each."""

    kind: int  #: `IMAGE`, `VIDEO` or `AUDIO`
    rows: Rows  #: (n, features)
    places: NDArray[np.int64]  #: (n, 3) frame, row, column; (n,) for sound

    def __len__(self) -> int:
        """Positions that it fills."""
        return len(self.rows)


def patches(frames: Rows, side: int) -> tuple[Rows, NDArray[np.int64]]:
    """Cut (frames, 3, height, width) into rows (n, 3 * side**2) and their places (n, 3)."""
    times, _, height, width = frames.shape
    rows, columns = height // side, width // side
    split = frames.reshape(times, 3, rows, side, columns, side)
    cut = split.transpose(0, 2, 4, 1, 3, 5).reshape(times * rows * columns, -1)
    places = np.indices((times, rows, columns)).reshape(3, -1).T
    return np.ascontiguousarray(cut), np.ascontiguousarray(places)
