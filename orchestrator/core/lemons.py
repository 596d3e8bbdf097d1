"""Nodes that fail more often than their cohort explains: shrinkage cohort -> node.

A node's frailty multiplies its cohort's rate. Before anything is seen it is exponential with mean
1; a node that should have failed E times like its cohort and failed n times has a Gamma(1 + n,
1 + E) frailty. The score is the probability that it is at least three. What a burst took down
together says nothing of single nodes and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import exp

from orchestrator.core.cohorts import Failure
from orchestrator.core.nodes import NodeName
from orchestrator.core.phases import MERGE

FRAIL = 3.0  #: times its cohort's rate: a lemon
LEMON = 0.7  #: score from which a node is called one
BURST = 2  #: nodes that fail in one incident; more have a cause in common


@dataclass(frozen=True, slots=True)
class Lemon:
    """How frail a node is held to be."""

    score: float  #: probability that it fails at least `FRAIL` times as often as its cohort
    frailty: float  #: mean of what is thought possible; 1 is its cohort
    failures: int
    expected: float

    @property
    def sour(self) -> bool:
        """Say whether it is called a lemon."""
        return self.score >= LEMON

    @property
    def reason(self) -> str:
        """Say why, in words."""
        expected = f"{self.expected:.2g}"
        times = "once" if self.failures == 1 else f"{self.failures} times"
        return f"failed {times} in 13 weeks where its cohort explains {expected}"


def frailty(node: NodeName, failures: Sequence[Failure], nodes: float) -> Lemon:
    """Return the lemon score of one of a cohort's `nodes` nodes from the cohort's failures."""
    alone = single(failures)
    mine = sum(one.node == node for one in alone)
    expected = (len(alone) - mine) / max(1.0, nodes - 1)
    shape, rate = 1 + mine, 1 + expected
    return Lemon(_gamma_tail(shape, rate * FRAIL), shape / rate, mine, expected)


def single(failures: Sequence[Failure]) -> list[Failure]:
    """Return the failures that were not part of a burst."""
    kept: list[Failure] = []
    burst: list[Failure] = []
    began: datetime | None = None
    for one in (*failures, None):
        if one is not None and began is not None and one.at < began + MERGE:
            burst.append(one)
            continue
        if len({failure.node for failure in burst}) <= BURST:
            kept += burst
        if one is not None:
            burst, began = [one], one.at
    return kept


def _gamma_tail(shape: int, x: float) -> float:
    """Return P(Gamma(shape, 1) > x): a Poisson count of mean x that is below `shape`."""
    term = total = exp(-x)
    for count in range(1, shape):
        term *= x / count
        total += term
    return min(1.0, total)
