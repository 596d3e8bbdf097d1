"""One `reconcile` of a big quiet fleet, against merely copying its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.nodes import (
    ClusterName,
    CohortName,
    Machine,
    MachineId,
    Node,
    NodeName,
    NodeState,
    ProviderName,
)
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import reconcile

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NODES = 2_000


def fleet() -> Fleet:
    """Return six clusters of idle nodes."""
    nodes = {}
    for number in range(NODES):
        cluster = ClusterName(f"c{number % 6}")
        name = NodeName(f"{cluster}-{number:05d}")
        nodes[name] = Node(
            name,
            cluster,
            ProviderName("local"),
            CohortName("first"),
            Machine(MachineId(name)),
            NodeState.SPARE,
            NOW - timedelta(days=1),
            "healthy",
        )
    clusters = tuple(Cluster(ClusterName(f"c{n}"), ProviderName("local")) for n in range(6))
    return Fleet(NOW, clusters, nodes)


def pairs() -> Iterator[tuple[str, Callable[[], object], str, Callable[[], object]]]:
    """Yield what is compared."""
    quiet, policy = fleet(), Policy()
    yield (
        f"reconcile {NODES} idle nodes",
        lambda: reconcile(quiet, policy),
        f"copy {NODES} nodes (dataclasses.replace)",
        lambda: [replace(node, reason="x") for node in quiet.nodes.values()],
    )
