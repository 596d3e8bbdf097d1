"""One run of health checks, read for acceptance: findings, what they cover, and figures.

What a node says is untrusted: names, numbers and texts are bounded and checked here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from orchestrator.core.acceptance import Ran
from orchestrator.observers.findings import parse_all

LINES_MAX = 600
NAMES_MAX = 200  #: checks, or figures of one check
TEXT_MAX = 200


def read(out: bytes) -> Ran:
    """Read the output of `python -m healthchecks -o json`; what is cut short covers nothing."""
    bodies: list[dict[str, Any]] = []
    coverage: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for line in out.decode(errors="replace").splitlines()[:LINES_MAX]:
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(body, dict):
            continue
        if isinstance(body.get("coverage"), dict):
            coverage = body["coverage"]
        elif isinstance(body.get("figures"), dict):
            figures = body["figures"]
        else:
            bodies.append(body)
    findings = parse_all(bodies)
    if not coverage:
        return Ran(findings, error="the answer was cut short")
    covered = _names(coverage.get("passed")) | _names(coverage.get("failed"))
    spoke = {one.check for one in findings}
    return Ran(
        findings=findings,
        expected=_names(coverage.get("expected")),
        covered=covered & spoke,  # a check that passed says so in a finding
        skipped=_reasons(coverage.get("skipped")),
        figures={check: _figures(of) for check, of in _items(figures) if isinstance(of, dict)},
    )


def _names(told: Any) -> frozenset[str]:
    if not isinstance(told, list):
        return frozenset()
    return frozenset(one for one in told[:NAMES_MAX] if isinstance(one, str))


def _items(told: Any) -> list[tuple[str, Any]]:
    if not isinstance(told, Mapping):
        return []
    return [(_text(name), of) for name, of in list(told.items())[:NAMES_MAX]]


def _reasons(told: Any) -> dict[str, str]:
    return {name: _text(why) for name, why in _items(told)}


def _figures(told: Mapping[str, Any]) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for part, value in _items(told):
        if isinstance(value, str):
            found[part] = _text(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                continue
            if math.isfinite(number):
                found[part] = number
    return found


def _text(value: Any) -> str:
    text = str(value)[:TEXT_MAX]
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
