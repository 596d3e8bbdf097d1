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
from orchestrator.core.custody import tend_node
from orchestrator.core.decisions import Decision
from orchestrator.core.eviction import evict_unfit
from orchestrator.core.examining import examine_idle
from orchestrator.core.fleet import Fleet
from orchestrator.core.incidents import (
    tell,
    wrong_with_attempt,
    wrong_with_cluster,
    wrong_with_job,
    wrong_with_node,
)
from orchestrator.core.kinship import enlist_new
from orchestrator.core.labels import label_firings, set_authority
from orchestrator.core.localising import localise
from orchestrator.core.look import Look, Recall
from orchestrator.core.orders import answer_orders
from orchestrator.core.pacing import pace_checkpoints
from orchestrator.core.parts import Kind, Phase
from orchestrator.core.placement import dearest_first, place_job
from orchestrator.core.policies import Policy
from orchestrator.core.recovery import by_priority, close_attempt, settle_job, tend_attempt

ROUNDS_MAX = 8  #: rounds of one look; each decision of a round may call for another

#: What one round does, in this order; each phase for all its subjects before the next one begins.
PHASES = (
    Phase("answer orders", Kind.FLEET, answer_orders),
    Phase("enlist new nodes", Kind.FLEET, enlist_new),
    Phase("label firings", Kind.NODE, label_firings),
    Phase("set authorities", Kind.FLEET, set_authority),
    Phase("tend nodes", Kind.NODE, tend_node),
    Phase("evict the unfit", Kind.RUN, evict_unfit),
    Phase("localise", Kind.RUN, localise),
    Phase("tend attempts", Kind.RUN, tend_attempt, by_priority),
    Phase("pace checkpoints", Kind.RUN, pace_checkpoints),
    Phase("close attempts", Kind.RUN, close_attempt),
    Phase("settle jobs", Kind.JOB, settle_job),
    Phase("place jobs", Kind.JOB, place_job, dearest_first),
    Phase("examine idle nodes", Kind.NODE, examine_idle),
    Phase("dismiss agents", Kind.NODE, dismiss_agents),
    Phase("what is wrong with nodes", Kind.NODE, wrong_with_node),
    Phase("what is wrong with jobs", Kind.JOB, wrong_with_job),
    Phase("what is wrong with attempts", Kind.RUN, wrong_with_attempt),
    Phase("what is wrong with clusters", Kind.CLUSTER, wrong_with_cluster),
    Phase("tell", Kind.FLEET, tell),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in order, and when the same snapshot would say something else."""

    decisions: tuple[Decision, ...]
    look_again_at: datetime | None  #: None: only news can change anything


def reconcile(fleet: Fleet, policy: Policy, recall: Recall | None = None) -> Plan:
    """Decide everything that the snapshot calls for.

    `recall`, made by `new_recall` and given again with each snapshot, makes that quick, and changes
    nothing: what rests only on what has not changed since is not thought again (see `parts`).
    """
    look = Look(fleet, policy, PHASES) if recall is None else recall.take(fleet, policy)
    for _ in range(ROUNDS_MAX):
        if not look.go_round():
            break
    if recall is not None:
        recall.keep(look)
    return Plan(tuple(look.decisions), look.again())


def new_recall() -> Recall:
    """Return a memory for one series of looks at one fleet."""
    return Recall(PHASES)


__all__ = ["PHASES", "Plan", "Recall", "new_recall", "reconcile"]
