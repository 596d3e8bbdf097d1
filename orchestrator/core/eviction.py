"""Who must leave a running gang, and who may: evidence, shared causes and the breaker.

An eviction needs an explicit hardware fault or two channels; it counts against the cluster's hour
and its share of nodes held back. Many suspects at once without an explicit fault have a cause in
common (a switch, a bad release of the checks): nobody is evicted, people are told. The breaker
stops evictions, it never stops a gang from resuming.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.custody import hold_back, share_left
from orchestrator.core.gang import live
from orchestrator.core.jobs import Attempt
from orchestrator.core.judge import Judgement
from orchestrator.core.look import HOUR, LIVE, Look
from orchestrator.core.nodes import Node, NodeState
from orchestrator.core.placement import spares
from orchestrator.core.verdicts import Verdict

SUSPECTS_MIN = 2  #: that many suspects are never called a shared cause


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the findings of one gang's nodes amount to."""

    condemned: tuple[tuple[Node, Judgement], ...]  #: to be evicted, in order
    shared: str | None = None  #: why the suspects are left alone


def evict_unfit(look: Look, attempt: Attempt) -> None:
    """Take every condemned node out of a gang that lives, within the limits."""
    if attempt.state not in LIVE:
        return
    for node, judgement in weigh(look, attempt).condemned:
        if refusal(look, attempt) is None:
            instead = _replacement(look, attempt, node)
            reason = f"from {attempt.job}: {judgement.words}; {instead}"
            hold_back(look, node, judgement, reason, counts="eviction")


def weigh(look: Look, attempt: Attempt) -> Weighed:
    """Judge every seat of an attempt."""
    question = ("weigh", attempt.job, attempt.number)
    return look.once(question, lambda: _weigh(look, attempt))


def _weigh(look: Look, attempt: Attempt) -> Weighed:
    seats = look.seats(attempt)
    judged = [(node, look.judge(node)) for node in seats]
    named = [(node, one) for node, one in judged if one.explicit]
    doubted = [(node, one) for node, one in judged if one.evidence and not one.explicit]
    most = max(SUSPECTS_MIN, look.policy.suspects_share * len(seats))
    if len(doubted) > most:
        names = ", ".join(node.name for node, _ in doubted)
        cause = f"{len(doubted)} of {len(seats)} nodes are suspected at once ({names})"
        return Weighed(tuple(named), f"{cause}: {doubted[0][1].words}; nobody is evicted")
    unfit = [(node, one) for node, one in doubted if one.verdict is Verdict.UNFIT]
    return Weighed((*named, *unfit))


def refusal(look: Look, attempt: Attempt) -> str | None:
    """Return why the breaker refuses another eviction on this attempt's cluster."""
    used = look.used("eviction", attempt.cluster, HOUR)
    if look.exhausted(used, max(1, look.policy.evictions_per_hour), HOUR):
        return f"{len(used)} evictions on {attempt.cluster} within the hour"
    if not share_left(look, attempt.cluster):
        return f"as many nodes of {attempt.cluster} are held back as the policy allows"
    return None


def _replacement(look: Look, attempt: Attempt, node: Node) -> str:
    if node.state is not NodeState.IN_USE:
        return "the gang goes on without it"
    for seat in look.seats(attempt):
        if seat.state is NodeState.STANDBY and live(
            look.belief(seat.name).agent(attempt.job, attempt.number)
        ):
            return f"standby {seat.name} takes its place"
    fit = spares(look, attempt.cluster, look.job(attempt.job).spec)
    return f"spare {fit[0].name} takes its place" if fit else "no spare is left to take its place"
