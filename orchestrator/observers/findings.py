"""Findings as nodes send them -> findings as the core knows them. What a node says is untrusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity

VERSION = 1
TEXT_MAX = 2_000
FINDINGS_MAX = 500


def parse(body: Mapping[str, Any]) -> Finding | None:
    """Return the finding, or None if this is not one that we can read."""
    try:
        if body["version"] != VERSION:
            return None
        return Finding(
            check=_text(body["check"], 60),
            component=_text(body["component"], 60),
            severity=Severity[body["severity"]],
            fault=FaultClass(body["class"]),
            evidence=_text(body["evidence"], TEXT_MAX),
            channel=Channel.NODE,  # whatever it claims: it is the node that speaks
            observed_at=datetime.fromtimestamp(float(body["observed_at"]), UTC),
            boot_id=_text(body.get("boot_id") or "", 80),
            serial=_text(body.get("serial") or "", 80),
            code=_text(body.get("code") or "", 20),
            remedy=_text(body.get("remedy") or "", 200),
            cost=float(body.get("cost") or 0.0),
        )
    except (KeyError, ValueError, TypeError, OverflowError, OSError, AttributeError):
        return None


def moment(seconds: float) -> datetime | None:
    """Return what a node's clock said as a moment; None for what no clock says."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def parse_all(bodies: Iterable[Any]) -> tuple[Finding, ...]:
    """Return what can be read, newest per key, sorted by key."""
    found: dict[tuple[str, str, str], Finding] = {}
    for number, body in enumerate(bodies):
        if number >= FINDINGS_MAX:
            break
        finding = parse(body) if isinstance(body, Mapping) else None
        if finding is not None and _newer(finding, found.get(finding.key)):
            found[finding.key] = finding
    return tuple(found[key] for key in sorted(found))


def parse_output(out: bytes) -> tuple[tuple[Finding, ...], bool]:
    """Read the output of `python -m healthchecks -o json`: (findings, whether it was complete).

    Complete means that the coverage record at the end says expected = passed + failed + skipped.
    """
    bodies: list[Any] = []
    complete = False
    for line in out.decode(errors="replace").splitlines()[: FINDINGS_MAX + 1]:
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(body, dict) and isinstance(body.get("coverage"), dict):
            complete = _covers(body["coverage"])
        else:
            bodies.append(body)
    return parse_all(bodies), complete


def _covers(coverage: Mapping[str, Any]) -> bool:
    def count(value: Any) -> int:
        return len(value) if isinstance(value, list | dict) else int(value)

    try:
        done = sum(count(coverage[name]) for name in ("passed", "failed", "skipped"))
        return count(coverage["expected"]) == done
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _newer(finding: Finding, other: Finding | None) -> bool:
    if other is None:
        return True
    if finding.severity != other.severity and Severity.CRITICAL in (
        finding.severity,
        other.severity,
    ):
        return finding.severity is Severity.CRITICAL
    return finding.observed_at >= other.observed_at


def _text(value: Any, most: int) -> str:
    text = str(value)[:most]
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
