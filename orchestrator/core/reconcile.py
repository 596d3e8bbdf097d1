"""Fleet and policy -> decisions: the one deciding function of Holdfast, pure and level-triggered.

The daemon, `holdfast plan`, the simulator and the tests call this same function. It looks at the
whole snapshot, never at what just happened, and goes round until it has nothing to add: the same
snapshot with its decisions enacted or entered as intents decides nothing new. It may not touch the
world, look at a clock, roll dice or log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.agents import dismiss_agents
from orchestrator.core.custody import tend_nodes
from orchestrator.core.decisions import Decision
from orchestrator.core.eviction import evict_unfit
from orchestrator.core.fleet import Fleet
from orchestrator.core.incidents import tell
from orchestrator.core.look import Look
from orchestrator.core.orders import answer_orders
from orchestrator.core.placement import place_jobs
from orchestrator.core.policies import Policy
from orchestrator.core.recovery import tend_attempts

ROUNDS_MAX = 8  #: rounds of one look; each decision of a round may call for another


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in order, and when the same snapshot would say something else."""

    decisions: tuple[Decision, ...]
    look_again_at: datetime | None  #: None: only news can change anything


def reconcile(fleet: Fleet, policy: Policy) -> Plan:
    """Decide everything that the snapshot calls for."""
    look = Look(fleet, policy)
    for _ in range(ROUNDS_MAX):
        before = len(look.decisions)
        look.moments.clear()
        _round(look)
        if len(look.decisions) == before:
            break
    later = [moment for moment in look.moments if moment > fleet.now]
    return Plan(tuple(look.decisions), min(later, default=None))


def _round(look: Look) -> None:
    answer_orders(look)
    tend_nodes(look)
    evict_unfit(look)
    tend_attempts(look)
    place_jobs(look)
    dismiss_agents(look)
    tell(look)
