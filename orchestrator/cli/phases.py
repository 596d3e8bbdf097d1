"""Phases as rows: each cohort's phase, how probable it is, and its rate with its interval.

Pure: a fleet in, plain rows out. What is shown is what decisions use (`core.outlook`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.core.cohorts import cohort_key
from orchestrator.core.fleet import Fleet
from orchestrator.core.look import Look
from orchestrator.core.nodes import Node
from orchestrator.core.outlook import cohort_outlook
from orchestrator.core.policies import Policy

if TYPE_CHECKING:
    from orchestrator.core.outlook import CohortOutlook

Row = dict[str, Any]
Outlooks = dict[str, "CohortOutlook"]

COHORT_COLUMNS = {
    "CLUSTER": "cluster",
    "COHORT": "cohort",
    "NODES": "nodes",
    "PHASE": "phase",
    "P(STABLE)": "p_stable",
    "FAILURES/NODE-WK": "failures_per_node_week",
    "NEXT WK": "failures_next_week",
    "SINCE": "since",
}


def outlooks(fleet: Fleet) -> Outlooks:
    """Return what is held of each cohort that runs or has nodes, by "cluster/cohort"."""
    look = Look(fleet, Policy())
    names = {(one.cluster, one.cohort) for one in fleet.beliefs.cohorts.values()}
    names |= {(node.cluster, node.cohort) for node in fleet.nodes.values()}
    return {cohort_key(*name): cohort_outlook(look, *name) for name in sorted(names)}


def phase_cells(node: Node, known: Outlooks) -> Row:
    """Return the phase of a node's cohort, for its row."""
    return _cells(known[cohort_key(node.cluster, node.cohort)])


def cohort_row(one: CohortOutlook) -> Row:
    """Return one cohort for a list."""
    week = one.phases.forecast(1.0)
    return {
        "cluster": one.cluster,
        "cohort": one.cohort,
        "nodes": round(one.nodes),
        **_cells(one),
        "failures_next_week": f"{week.expected:.2g}, at most {week.upper}",
        "since": one.chaotic_since,
    }


def _cells(one: CohortOutlook) -> Row:
    rate = f"{one.rate:.2g} [{one.low:.2g}, {one.high:.2g}]"
    return {
        "phase": "chaotic" if one.chaotic else "stable",
        "p_stable": round(1 - one.p_chaotic, 2),
        "failures_per_node_week": rate,
    }
