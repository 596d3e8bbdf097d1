"""The deciding part: one look at a big fleet, and what a failure costs in fleets of two sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from bench.fleets import SIZE, Sketch, clusters
from orchestrator.core.nodes import NodeName, NodeState
from orchestrator.core.reconcile import reconcile

MANY, JOBS = 100, 50  #: clusters of 100 nodes; those of them that have a job


def pairs() -> Iterator[tuple[str, Callable[[], object], str, Callable[[], object]]]:
    """Yield what is compared."""
    big, small = Sketch(clusters(MANY), JOBS), Sketch(clusters(1), 1)
    quiet, policy = big.fleet(), big.policy
    yield (
        f"reconcile {MANY * SIZE} nodes and {JOBS} jobs, nothing recalled",
        lambda: reconcile(quiet, policy),
        f"copy {MANY * SIZE} nodes (dataclasses.replace)",
        lambda: [replace(node, reason="x") for node in quiet.nodes.values()],
    )
    yield (
        f"a failure and its repair, {MANY * SIZE} nodes",
        failures(big),
        f"the same, {SIZE} nodes",
        failures(small),
    )
    yield (
        "a round after news of one node, 625 nodes in six clusters with six jobs",
        news(Sketch({f"c{number}": 104 + (number == 0) for number in range(6)}, 6)),
        "reconcile the same fleet, nothing recalled",
        _cold(Sketch({f"c{number}": 104 + (number == 0) for number in range(6)}, 6)),
    )


def failures(sketch: Sketch) -> Callable[[], object]:
    """Break one more node of the first cluster at each call, and repair it."""
    cluster = next(iter(sketch.sizes))

    def one() -> None:
        nodes = sketch.fleet().nodes.values()
        mine = [one for one in nodes if one.cluster == cluster and one.state is NodeState.IN_USE]
        sketch.fail(
            min(mine, key=lambda node: (len(node.history.troubles), node.name)).name, cluster
        )

    return one


def news(sketch: Sketch) -> Callable[[], object]:
    """Probe one node of the first cluster at each call, and decide."""
    cluster, numbers = next(iter(sketch.sizes)), count()

    def one() -> None:
        sketch.probe([NodeName(f"{cluster}-{next(numbers) % 90:03d}")])
        sketch.round()

    return one


def _cold(sketch: Sketch) -> Callable[[], object]:
    quiet, policy = sketch.fleet(), sketch.policy
    return lambda: reconcile(quiet, policy)
