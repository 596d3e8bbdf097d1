"""What the rates of pair tests amount to. Pure, on plain data; the test is `active/pairs.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, TypeVar

K = TypeVar("K")
RAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}")  #: the name of a card, or of an interface
SLOW_GLOO, SLOW_NCCL = 0.5, 0.8  #: of the usual rate: a pair below has a bad member


def failed(rates: Mapping[K, float | None], slow: float = SLOW_GLOO) -> dict[K, bool]:
    """Say of each test whether it failed: not done at all, or far slower than most pairs.

    `slow`: the share of the usual rate below which it is.
    """
    done = [one for one in rates.values() if one is not None]
    usual = median(done) if done else 0.0
    return {pair: one is None or one < slow * usual for pair, one in rates.items()}


def slowest_of(answers: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the rate of a pair from the answers of its two nodes; None if either failed."""
    rates = [one.get("gbps") for one in answers]
    known = [float(one) for one in rates if one is not None]
    return min(known) if known and len(known) == len(rates) else None
