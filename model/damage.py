"""Damaged samples told to people: each of the first as it is met, and the totals of the gang."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from model.data.feed import Tally

if TYPE_CHECKING:
    from model.data.loader import Loader
    from orchestrator.runtime.training import Run


class Told:
    """Names on standard error what a rank's loader could not use, once each."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._count = 0

    def tell(self) -> None:
        """Name what is new since the last time; at most the first `NAMED_MAX` are kept."""
        named = self._loader.tally.named
        for one in named[self._count :]:
            print(f"damaged sample: {one}", file=sys.stderr, flush=True)
        self._count = len(named)


def of_gang(run: Run, loader: Loader) -> Tally:
    """Return what all ranks counted since their processes began; every rank calls it.

    Ranks that share their samples (context and tensor parallel) count them once.
    """
    if run.world_size == 1:
        return loader.tally
    import torch

    counted: list[tuple[int, Tally]] = [(0, Tally())] * run.world_size
    torch.distributed.all_gather_object(counted, (loader.rank, loader.tally))
    whole = Tally()
    for _, tally in sorted(dict(counted).items()):
        whole.add(tally)
    return whole
