"""Which sample comes when: a pure function of the data seed, the stage and the place in it.

A stage's samples form one endless sequence. Its mixture is kept exactly in every cycle of `CYCLE`
places, in an order drawn for that cycle; each source goes through its items again and again, each
pass in an order of its own. Batch n (from 1) of size b holds places (n - 1) * b to n * b - 1,
whoever computes them, so neither the number of ranks nor a restart changes what is learned when.
Nothing needs saving but the number of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CYCLE = 240  #: places in which a mixture's shares are exact, to 1/240
#: First words of the keys, so that no two uses of a seed share a stream of random numbers.
_ORDER, _TRAIN, _HELD_OUT, _CYCLES, _SUBSTITUTE = range(5)


@dataclass(frozen=True, slots=True)
class Stream:
    """The endless sequence of one stage."""

    data_seed: int
    stage: int  #: number of the stage in its curriculum
    shares: tuple[float, ...]  #: of each source in the mixture; any positive scale

    def at(self, place: int) -> tuple[int, int]:
        """Return the source at a place, and how many of that source come before it."""
        number, offset = divmod(place, CYCLE)
        sources, before = _cycle(self, number)
        source = int(sources[offset])
        return source, number * quotas(self.shares)[source] + int(before[offset])

    def item(self, source: int, ordinal: int, count: int) -> int:
        """Return which of a source's `count` items is its draw number `ordinal` (from 0)."""
        number, offset = divmod(ordinal, count)
        return int(_pass_order(self, source, count, number)[offset])

    def dice(self, batch: int, index: int) -> np.random.Generator:
        """Return the random numbers of sample `index` of batch number `batch`."""
        return np.random.default_rng([_TRAIN, self.data_seed, self.stage, batch, index])

    def substitutes(self, batch: int, index: int) -> np.random.Generator:
        """Return the random numbers that say what stands in for a sample that is damaged."""
        return np.random.default_rng([_SUBSTITUTE, self.data_seed, self.stage, batch, index])


@lru_cache(maxsize=64)
def quotas(shares: tuple[float, ...]) -> tuple[int, ...]:
    """Return how many places of a cycle each source gets: largest remainders; none gets zero."""
    total = sum(shares)
    exact = [CYCLE * share / total for share in shares]
    whole = [max(1, int(part)) for part in exact]
    by_need = sorted(range(len(shares)), key=lambda i: (whole[i] - exact[i], i))
    for index in range(CYCLE - sum(whole)):
        whole[by_need[index % len(whole)]] += 1
    while sum(whole) > CYCLE:  # only where many shares are below one place
        whole[max(range(len(whole)), key=lambda i: whole[i])] -= 1
    return tuple(whole)


@lru_cache(maxsize=8)
def _cycle(stream: Stream, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the source of each place of a cycle, and how many of it come before in the cycle."""
    filled = np.repeat(np.arange(len(stream.shares)), quotas(stream.shares))
    dice = np.random.default_rng([_CYCLES, stream.data_seed, stream.stage, number])
    sources = dice.permutation(filled)
    before = np.zeros(CYCLE, np.int64)
    for source in range(len(stream.shares)):
        places = np.flatnonzero(sources == source)
        before[places] = np.arange(len(places))
    return sources, before


@lru_cache(maxsize=32)
def _pass_order(stream: Stream, source: int, count: int, number: int) -> NDArray[np.int64]:
    key = [_ORDER, stream.data_seed, stream.stage, source, number]
    return np.random.default_rng(key).permutation(count)


def share(batch: int, rank: int, world: int) -> range:
    """Return which samples of a batch this rank computes."""
    return range(rank, batch, world)


def held_out_dice(data_seed: int, *what: int) -> np.random.Generator:
    """Return random numbers that no training sample ever sees, for evaluation."""
    return np.random.default_rng([_HELD_OUT, data_seed, *what])
