"""Which sample comes when: a pure function of the data seed and the step.

The samples form one endless sequence: the data set again and again, each pass in an order of its
own. Step s of batch size b trains on positions (s - 1) * b to s * b - 1, whoever computes them, so
neither the number of ranks nor a restart changes what is learned from when. A rank takes every
`world`-th sample. Nothing needs saving but the step.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: First words of the keys, so that no two uses of a seed share a stream of random numbers.
_ORDER, _TRAIN, _HELD_OUT = range(3)


@lru_cache(maxsize=2)
def _pass_order(count: int, data_seed: int, number: int) -> NDArray[np.int64]:
    return np.random.default_rng([_ORDER, data_seed, number]).permutation(count)


def item_at(position: int, count: int, data_seed: int) -> int:
    """Return which of `count` items stands at a position of the endless sequence."""
    number, offset = divmod(position, count)
    return int(_pass_order(count, data_seed, number)[offset])


def batch_items(step: int, batch: int, count: int, data_seed: int) -> list[int]:
    """Return the items of the whole batch of a step; steps count from 1."""
    first = (step - 1) * batch
    return [item_at(first + index, count, data_seed) for index in range(batch)]


def share(batch: int, rank: int, world: int) -> range:
    """Return which samples of a batch this rank computes."""
    return range(rank, batch, world)


def sample_dice(data_seed: int, step: int, index: int) -> np.random.Generator:
    """Return the random numbers of one sample of a step."""
    return np.random.default_rng([_TRAIN, data_seed, step, index])


def held_out_dice(data_seed: int, sprite: int) -> np.random.Generator:
    """Return random numbers that no training sample ever sees, for evaluation."""
    return np.random.default_rng([_HELD_OUT, data_seed, sprite])
