"""Firings: a detector called a node bad; remembered until it is known who was right.

Folded by `assess` into the node's belief: findings of one detector on one node less than `GAP`
apart are one firing, whatever order they come in. `labels.py` says later what came of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity

GAP = timedelta(days=1)  #: silent for longer: the next finding is another firing
KEPT_FOR = timedelta(days=30)  #: behind the newest firing of the node
FIRINGS_MAX = 24  #: per node
TELLING = frozenset({Severity.WARNING, Severity.CRITICAL})


class FiringLabel(StrEnum):
    """What came of a firing."""

    RIGHT = "right"  #: somebody independent confirmed that the node was bad
    WRONG = "wrong"  #: the node went on to serve without trouble
    UNKNOWN = "unknown"  #: neither came in time


@dataclass(frozen=True, slots=True)
class Firing:
    """One episode of one detector on one node."""

    detector: str
    channel: Channel
    first_at: datetime
    last_at: datetime
    critical: bool = False
    label: FiringLabel | None = None


def accuses(finding: Finding) -> bool:
    """Say whether a finding speaks against its node at all.

    Not the user's code, nor a mere warning of configuration (a disk that fills up on every node at
    once must be told, and must not take the fleet away).
    """
    warned = (finding.severity, finding.fault) == (Severity.WARNING, FaultClass.CONFIG)
    telling = finding.severity in TELLING and finding.fault is not FaultClass.APPLICATION
    return telling and not warned


def heard(
    firings: tuple[Firing, ...], findings: Iterable[Finding], seen_at: datetime
) -> tuple[Firing, ...]:
    """Return a node's firings after a probe; the same object if it says nothing new."""
    known = firings
    for finding in findings:
        if accuses(finding):
            known = _with(known, finding, min(finding.observed_at, seen_at))
    return known


def _with(firings: tuple[Firing, ...], finding: Finding, at: datetime) -> tuple[Firing, ...]:
    critical = finding.severity is Severity.CRITICAL
    new = Firing(finding.detector, finding.channel, at, at, critical)
    near = [one for one in firings if _near(one, new)]
    for one in near:
        new = _joined(one, new)
    if near == [new]:
        return firings
    kept = [*(one for one in firings if one not in near), new]
    newest = max(one.last_at for one in kept)
    recent = (one for one in kept if one.last_at > newest - KEPT_FOR)
    ordered = sorted(recent, key=lambda one: (one.last_at, one.detector, one.channel))
    return tuple(ordered[-FIRINGS_MAX:])


def _near(one: Firing, other: Firing) -> bool:
    same = (one.detector, one.channel) == (other.detector, other.channel)
    return same and one.first_at - GAP <= other.last_at and other.first_at <= one.last_at + GAP


def _joined(one: Firing, other: Firing) -> Firing:
    return replace(
        one,
        first_at=min(one.first_at, other.first_at),
        last_at=max(one.last_at, other.last_at),
        critical=one.critical or other.critical,
        label=one.label or other.label,
    )
