"""`holdfast detector`: which checks may evict on their word alone, and how they earned it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.find import unknown
from orchestrator.cli.output import output_option, say, show_data, show_one, show_rows
from orchestrator.cli.session import Session

if TYPE_CHECKING:
    from orchestrator.core.detectors import Detector
    from orchestrator.core.fleet import Fleet
    from orchestrator.core.policies import Policy

COLUMNS = {
    "DETECTOR": "detector",
    "AUTHORITY": "authority",
    "RIGHT": "right",
    "WRONG": "wrong",
    "UNKNOWN": "unknown",
    "OPEN": "open",
    "PRECISION": "precision",
    "90 %": "interval",
    "REASON": "reason",
}
LABEL_COLUMNS = {
    "FIRED": "fired_at",
    "NODE": "node",
    "LABEL": "label",
    "KNOWN": "known_at",
    "WHY": "reason",
}


@click.group()
def detector() -> None:
    """See detectors: a detector is one check with one code, such as xid:79."""


@detector.command("list")
@output_option
@click.pass_obj
def list_detectors(session: Session, output: str) -> None:
    """List the detectors that are declared, that fired lately, or that were ever labelled."""
    fleet, policy = session.fleet(), session.settings.core_policy
    rows = [detector_row(fleet, policy, name) for name in _names(fleet, policy)]
    show_rows(rows, COLUMNS, output)


@detector.command()
@click.argument("name", metavar="CHECK:CODE")
@output_option
@click.pass_obj
def show(session: Session, name: str, output: str) -> None:
    """Show one detector: its authority and why, its tests, its last labels."""
    fleet, policy = session.fleet(), session.settings.core_policy
    if name not in _names(fleet, policy):
        raise unknown("detector", name, _names(fleet, policy))
    labels = [
        {
            "fired_at": one.fired_at,
            "node": one.node,
            "label": "right" if one.right else "wrong",
            "known_at": one.at,
            "reason": one.reason,
        }
        for one in _record(fleet, name).lately
    ]
    row = {**detector_row(fleet, policy, name), **_tests(_record(fleet, name))}
    if output != "table":
        show_data({**row, "labels": labels}, output)
        return
    show_one(row, output)
    if labels:
        click.echo()
        show_rows(labels, LABEL_COLUMNS, output)
    say(f"Its whole story: holdfast why {name}")


def _names(fleet: Fleet, policy: Policy) -> list[str]:
    fired = {one.detector for belief in fleet.beliefs.nodes.values() for one in belief.firings}
    return sorted({*policy.explicit, *policy.observe, *fleet.beliefs.detectors, *fired})


def _record(fleet: Fleet, name: str) -> Detector:
    from orchestrator.core.detectors import Detector

    return fleet.beliefs.detectors.get(name) or Detector(name)


def detector_row(fleet: Fleet, policy: Policy, name: str) -> dict[str, Any]:
    """Return how one detector stands."""
    from orchestrator.core.detectors import DECLARED, UNKNOWN

    record = _record(fleet, name)
    waiting = sum(
        one.detector == name and one.label is None
        for belief in fleet.beliefs.nodes.values()
        for one in belief.firings
    )
    low, high = record.interval()
    may, why = _authority(record, policy)
    return {
        "detector": name,
        "authority": may,
        "right": record.right,
        "wrong": record.wrong,
        "unknown": record.unlabelled,
        "open": waiting,
        "precision": round(record.precision(DECLARED if name in policy.explicit else UNKNOWN), 4),
        "interval": f"{low:.3f}-{high:.3f}" if record.labels else "-",
        "reason": why,
    }


def _authority(record: Detector, policy: Policy) -> tuple[str, str]:
    from orchestrator.core.judge import authority

    if record.name in policy.observe:
        return "silenced", "by the operator: policy.observe"
    may = authority(record.name, {record.name: record}, policy)
    declared = "an explicit hardware fault" if record.name in policy.explicit else "not earned yet"
    return may.value, record.reason or declared


def _tests(record: Detector) -> dict[str, Any]:
    from orchestrator.core.detectors import ALPHA, DOUBT_MAX

    return {
        "since": record.since,
        "promotion": f"capital {record.wealth:.3g}; promoted at {1 / ALPHA:g}",
        "demotion": f"doubt {record.doubted:.3g}; demoted at {DOUBT_MAX:g}",
    }
