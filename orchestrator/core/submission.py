"""A job's spec as plain JSON types and back: the body of a SUBMIT order.

`plain` is called by whoever submits (command line, tests), `read_spec` by the core when it accepts
the order. Durations travel as seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any

from orchestrator.core.jobs import JobSpec, WhenAlone
from orchestrator.core.nodes import ClusterName
from orchestrator.errors import UserError

DURATIONS = ("stop_after", "stop_grace")


def plain(spec: JobSpec) -> dict[str, Any]:
    """Return a spec as plain JSON types."""
    body = asdict(spec)
    for name in DURATIONS:
        body[name] = body[name].total_seconds()
    return {**body, "when_alone": spec.when_alone.value, "clusters": list(spec.clusters)}


def read_spec(body: Mapping[str, Any]) -> JobSpec:
    """Return the spec of an order; raises `UserError` if it is not one."""
    unknown = set(body) - {field.name for field in fields(JobSpec)}
    if unknown:
        raise UserError(f"unknown keys: {', '.join(sorted(unknown))}")
    try:
        spec = JobSpec(**{name: _read(name, value) for name, value in body.items()})
        sizes = (1, spec.nodes_min, spec.nodes_max, spec.ranks_per_node)
    except (TypeError, ValueError) as error:
        raise UserError(f"not a job: {error}") from error
    if not sizes[0] <= sizes[1] <= sizes[2] or sizes[3] < 1:
        raise UserError(f"nodes {spec.nodes_min} to {spec.nodes_max} is no size of a gang")
    return spec


def _read(name: str, value: Any) -> Any:
    if name in DURATIONS and not isinstance(value, timedelta):
        return timedelta(seconds=float(value))
    if name == "when_alone":
        return WhenAlone(value)
    if name == "clusters":
        return tuple(ClusterName(str(one)) for one in value)
    if name in ("nodes_min", "nodes_max", "ranks_per_node", "attempts_max", "generations_max"):
        return int(value)
    return value
