"""Which NIC rails are bad, where the topology names them: one localisation for each rail. Pure.

In a fabric of rails the k-th card of every node hangs on the k-th leaf, and tests between two nodes
over one rail say nothing of the others. So each rail is localised by itself, over all nodes, with
the same rules (`localise`); here what came of them becomes one answer. A node that is named on
every rail is bad itself: its rails are not named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.localise import Culprits, Outcome


@dataclass(frozen=True, slots=True)
class Rail:
    """One rail of every node of a cluster."""

    name: str  #: of the card (mlx5_0) or, between hosts, of the interface (eth1)
    gpu: int | None = None  #: the GPU beside it; None: tested from host to host


def joined(found: Mapping[str, Culprits]) -> Culprits:
    """Return what the localisations of all rails, by name, amount to together.

    Nodes are accused only if each rail is decided: one that is shared or unsure leaves all so.
    """
    for open_ in (Outcome.SHARED, Outcome.UNSURE):
        undecided = {name: one for name, one in found.items() if one.outcome is open_}
        if undecided:
            reason = "; ".join(f"{name}: {one.reason}" for name, one in sorted(undecided.items()))
            return Culprits(open_, suspicion=_suspicion(found), reason=reason)
    bad = {name: one for name, one in found.items() if one.outcome is Outcome.FOUND}
    posterior = min((one.posterior for one in found.values()), default=0.0)
    if not bad:
        return Culprits(Outcome.NOTHING, posterior=posterior, suspicion=_suspicion(found))
    nodes = frozenset().union(*(one.nodes for one in bad.values()))
    rails = {
        node: tuple(sorted(n for n, one in bad.items() if node in one.nodes)) for node in nodes
    }
    leaves = {one.leaf for one in bad.values()}
    return Culprits(
        Outcome.FOUND,
        nodes,
        leaves.pop() if len(leaves) == 1 else None,
        posterior,
        _suspicion(found),
        "; ".join(f"{name}: {one.reason}" for name, one in sorted(bad.items())),
        rails={node: mine for node, mine in rails.items() if len(mine) < len(found)},
    )


def _suspicion(found: Mapping[str, Culprits]) -> dict[str, float]:
    """Return for each node the chance that its worst rail is bad."""
    worst: dict[str, float] = {}
    for one in found.values():
        for node, chance in one.suspicion.items():
            worst[node] = max(chance, worst.get(node, 0.0))
    return worst
