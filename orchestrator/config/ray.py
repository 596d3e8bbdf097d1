"""The `ray:` part of a cluster of hosts: the Ray cluster on them, and how its nodes are held."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.config.models import Strict
from orchestrator.config.scalars import Duration, SecretRef, duration
from orchestrator.config.ssh import MachineSettings, Port

RESOURCE = r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,62}"


def _named(value: Any) -> Any:
    """Let a bare name stand for one of the cluster's own nodes."""
    return {"name": value} if isinstance(value, str) else value


def _resources(value: dict[str, float]) -> dict[str, float]:
    if not value:
        raise ValueError("expected at least one resource: what takes nothing holds nothing")
    for name, amount in value.items():
        if not re.fullmatch(RESOURCE, name):
            raise ValueError(f"expected the name of a resource of Ray, got {name[:60]!r}")
        if not 0 < amount < 1e6:
            raise ValueError(f"expected an amount of {name} above 0, got {amount:g}")
    return value


class RaySettings(Strict):
    """How Ray is asked to hold nodes: one detached actor per node of a grant."""

    token: SecretRef = Field(description="the Ray cluster's token (RAY_AUTH_TOKEN), by reference")
    head: Annotated[MachineSettings, BeforeValidator(_named)] | None = Field(
        default=None,
        description="where Ray's head runs: one of the nodes by its name, or another host as a "
        "machine with address and host_keys; default: the first node",
    )
    port: Port = Field(default=8265, description="port of Ray's dashboard on the head's loopback")
    python: str = Field(
        default="python3", min_length=1, description="interpreter on the head that has Ray"
    )
    resources: Annotated[dict[str, float], AfterValidator(_resources)] | None = Field(
        default=None,
        description="what is taken of each node; default: {CPU: 1} and all of its accelerators "
        "as GPU",
    )
    linger: Duration = Field(
        default=duration("1m"),
        description="duration for which a node stays held after its agent ended",
    )
