"""Which documents of the ledger a decision or an observation changed: two fleets compared.

The core returns a new fleet that shares every unchanged part; what is another object is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from orchestrator.core.beliefs import Beliefs
from orchestrator.core.fleet import Fleet
from orchestrator.core.observations import Ordered
from orchestrator.core.sheets import differing


@dataclass(frozen=True, slots=True)
class OrderBook:
    """The part of the beliefs that is about orders, kept as one document."""

    orders: tuple[Ordered, ...] = ()
    answered: tuple[int, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Change:
    """One document to be written, or removed (None)."""

    kind: str
    key: str
    thing: Any


def changes(before: Fleet, after: Fleet) -> tuple[Change, ...]:
    """Return what a decision changed among nodes, jobs, attempts and beliefs."""

    def attempts(fleet: Fleet) -> dict[str, Any]:
        return {f"{one.job}/{one.number}": one for one in fleet.attempts}

    old, new = attempts(before), attempts(after)
    kept = {**old, **new}  # a closed attempt leaves the snapshot, not the ledger
    return (
        *_compared("Node", before.nodes, after.nodes),
        *_compared("Job", before.jobs, after.jobs),
        *_compared("Attempt", old, kept),
        *of_beliefs(before.beliefs, after.beliefs),
    )


def of_beliefs(before: Beliefs, after: Beliefs) -> tuple[Change, ...]:
    """Return what changed among the beliefs."""
    found = chain(
        _compared("NodeBelief", before.nodes, after.nodes),
        _compared("ClusterBelief", before.clusters, after.clusters),
        _compared("RegisterBelief", before.registers, after.registers),
        _compared("CohortBelief", before.cohorts, after.cohorts),
        _compared("Detector", before.detectors, after.detectors),
        _compared("LinkBelief", before.links, after.links),
    )
    book = OrderBook(after.orders, after.answered)
    if book != OrderBook(before.orders, before.answered):
        found = chain(found, [Change("OrderBook", "orders", book)])
    return tuple(found)


def _compared(kind: str, old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Iterator[Change]:
    for key in differing(old, new):
        yield Change(kind, str(key), new.get(key))
