"""Memory that a GPU copies into by itself: a mapped segment, made known to CUDA.

Without it a copy from a GPU goes through a small buffer of the driver's, and the thread that asked
for it waits. torch is imported by whoever imports this. Python 3.10.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

LOG = logging.getLogger(__name__)


class Pin:
    """One run of pages, pinned while a GPU's snapshots lie there."""

    def __init__(self, address: int, size_bytes: int) -> None:
        """Remember the pages; nothing is pinned yet."""
        self._address, self._bytes = address, size_bytes
        self._asked = self.held = False

    def hold(self) -> None:
        """Pin the pages, once; where CUDA refuses, copies work all the same, only slower."""
        if self._asked:
            return
        self._asked = True
        code = int(_runtime().cudaHostRegister(self._address, self._bytes, 0))
        self.held = code == 0
        if not self.held:
            LOG.warning("snapshots are copied through pageable memory: CUDA error %d", code)

    def release(self) -> None:
        """Unpin them; before they are unmapped."""
        if self.held:
            _runtime().cudaHostUnregister(self._address)
            self.held = False


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
