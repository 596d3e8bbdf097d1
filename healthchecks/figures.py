"""What was measured, for whoever compares nodes: rates and hashes by check and component.

A node cannot know what its cohort reaches. At the level `acceptance` a run prints one line more,
`{"version": 1, "figures": {check: {component: number or hash}}}`; the judgement is made elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from healthchecks.active.devices import component

RATES = ("gemm", "memory-bandwidth", "transfer")


def of(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures in what checks saw; a check that saw none is absent."""
    found: dict[str, dict[str, Any]] = {}
    for check in RATES:
        if seen := facts.get(check):
            found[check] = {component(on): one["rate"] for on, one in seen["rates"].items()}
    if seen := facts.get("all-reduce"):
        found["all-reduce"] = {"host": seen["rate"]}
    if seen := facts.get("storage"):
        found["storage"] = {on: one["write"] for on, one in seen["disks"].items() if "write" in one}
    if seen := facts.get("soak"):
        found["soak"] = {component(on): median(rates) for on, rates in seen["pieces"].items()}
    if seen := facts.get("repeat"):
        found["repeat"] = {
            component(on): f"{seen['names'][on]}/{seen.get('stack', '')}/{hashes[0]}"
            for on, hashes in seen["hashes"].items()
        }
    return found
