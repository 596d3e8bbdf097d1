"""Who must leave a running gang, and who may: evidence, shared causes and the breaker.

An eviction needs an explicit hardware fault or two channels, told lately; it counts against the
hours of cohort, cluster and fleet, and their shares of nodes held back. Without an explicit fault a
node whose gang trains stays until somebody can take its place. Many suspects at once
without an explicit fault have a cause in common (a switch, a bad release of the checks): nobody is
evicted, people are told. A group that is named again and again while no node shows a fault may be
taken out as a whole and checked. The breaker stops evictions, it never stops a gang from resuming.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.custody import hold_back, no_room, shared_from
from orchestrator.core.decisions import MoveNode
from orchestrator.core.enact import cohort_subject
from orchestrator.core.gang import live, read_gang
from orchestrator.core.history import ACCUSED, UNSEEN
from orchestrator.core.jobs import Attempt
from orchestrator.core.judge import LIKELY, Judgement, conclude
from orchestrator.core.look import HOUR, LIVE, Look
from orchestrator.core.nodes import Node, NodeState
from orchestrator.core.observations import Accused
from orchestrator.core.placement import spares
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity, Verdict
from orchestrator.runtime.lineage import Cause
from orchestrator.runtime.reports import Stage

ENDS_MIN = 2  #: generations that ended through one node and reached no checkpoint
RANKS_DIED = frozenset({Cause.RANK_EXIT, Cause.RANK_STOPPED})  #: a hang says nothing of a node


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the findings of one gang's nodes amount to."""

    condemned: tuple[tuple[Node, Judgement], ...]  #: to be evicted, in order
    shared: str | None = None  #: why the suspects are left alone


def evict_unfit(look: Look, attempt: Attempt) -> None:
    """Take every condemned node out of a gang that lives, within the limits."""
    if attempt.state not in LIVE:
        return
    condemned = weigh(look, attempt).condemned
    for node, judgement in condemned:
        if stays(look, attempt, node, judgement) is None and refusal(look, node) is None:
            instead = _replacement(look, attempt, node)
            reason = f"from {attempt.job}: {judgement.words}; {instead}"
            trained = trains_on(look, attempt, node)
            hold_back(look, node, judgement, reason, counts="eviction", trained=trained)
    if not condemned:
        _evict_suspects(look, attempt)


def weigh(look: Look, attempt: Attempt) -> Weighed:
    """Judge every seat of an attempt."""
    question = ("weigh", attempt.job, attempt.number)
    return look.once(question, lambda: _weigh(look, attempt))


def _weigh(look: Look, attempt: Attempt) -> Weighed:
    seats = look.seats(attempt)
    judged = [(node, _borne_out(look, attempt, node, fresh(look, node))) for node in seats]
    named = [(node, one) for node, one in judged if one.explicit]
    doubted = [(node, one) for node, one in judged if one.evidence and not one.explicit]
    if len(doubted) > shared_from(look, len(seats)):
        names = ", ".join(node.name for node, _ in doubted)
        cause = f"{len(doubted)} of {len(seats)} nodes are suspected at once ({names})"
        return Weighed(tuple(named), f"{cause}: {doubted[0][1].words}; nobody is evicted")
    unfit = [(node, one) for node, one in doubted if one.verdict is Verdict.UNFIT]
    return Weighed((*named, *unfit))


def fresh(look: Look, node: Node) -> Judgement:
    """Judge a node by what we were told lately only: what went stale evicts nobody."""
    judgement = look.judge(node)
    age = look.policy.evidence_age
    told = judgement.evidence
    kept = tuple(one for one in told if look.recent(one.told_at or one.observed_at, age))
    return judgement if len(kept) == len(told) else conclude(kept, look.acting())


def _borne_out(look: Look, attempt: Attempt, node: Node, judgement: Judgement) -> Judgement:
    """Add what the gang's own record says of a suspect: it is a channel of its own.

    A gang that ended through the same node again and again, with no checkpoint in between, says so
    independently of that node's checks. Alone it accuses nobody: the fault may be the job's.
    """
    if judgement.explicit or not judgement.evidence:
        return judgement
    seen = look.register(attempt.job).seen
    if seen is None:
        return judgement
    since = seen.commit.seq if seen.commit is not None else 0
    ends = [one.because for one in seen.generations if one.seq > since]
    through = [one for one in ends if one.node == node.name and one.cause in RANKS_DIED]
    if len(through) < ENDS_MIN:
        return judgement
    record = Finding(
        check="generations",
        component="host",
        severity=Severity.WARNING,
        fault=FaultClass.HARDWARE,
        evidence=f"{len(through)} generations of {attempt.job} in a row ended through it",
        channel=Channel.GANG,
        observed_at=seen.at,
        told_at=seen.at,
    )
    return conclude((*judgement.evidence, record), look.acting())


def refusal(look: Look, node: Node, more: int = 1) -> str | None:
    """Return why the breaker refuses to evict this node, or so many like it; None if it may go."""
    policy, cluster = look.policy, node.cluster
    cohorts = sorted({cohort_subject(one) for one in look.nodes_in(cluster)})
    here = sorted(at for one in cohorts for at in look.used("eviction", one, HOUR))
    mine = look.used("eviction", cohort_subject(node), HOUR)
    everywhere = look.fleet_used(("eviction",), HOUR)
    for used, most, where in (
        (here, policy.evictions_per_hour, cluster),
        (mine, policy.cohort_evictions_per_hour, f"cohort {node.cohort} of {cluster}"),
        (everywhere, policy.fleet_evictions_per_hour, "the fleet"),
    ):
        if look.exhausted(used, max(1, most) - (more - 1), HOUR):
            return f"{len(used)} evictions on {where} within the hour"
    return no_room(look, node, more)


def stays(look: Look, attempt: Attempt, node: Node, judgement: Judgement) -> str | None:
    """Return why a condemned node is left where it is for now; None if nothing speaks for it.

    Evidence of two channels says that a node is bad, not that nothing can run on it. While its gang
    trains and nobody could take its place, to evict it would stop a job that makes progress.
    """
    if judgement.explicit or node.state is not NodeState.IN_USE:
        return None
    spec = look.job(attempt.job).spec
    others = len(look.seats(attempt)) - 1 + len(spares(look, attempt.cluster, spec))
    if others >= spec.nodes_min or not trains_on(look, attempt, node):
        return None
    return "its gang trains on and nobody can take its place"


def trains_on(look: Look, attempt: Attempt, node: Node) -> bool:
    """Say whether a gang runs with this node in it, as all its members tell, and misses nobody."""
    gang = read_gang(look, attempt)
    ranks = [gang.reports.get(name) for name in gang.members]
    running = all(one is not None and one.stage is Stage.RUNNING for one in ranks)
    return running and node.name in gang.members and not gang.missed


def suspects(look: Look, attempt: Attempt) -> tuple[Node, ...]:
    """Return the group that is to leave although nobody in it shows a fault; () for none.

    The gang failed or hung again and again: it was accused as a group `policy.over_evict_after`
    times within the window. Only nodes that every one of these accusations names are meant (if they
    agree on none, those of the last one), only as many as no shared cause would be, and only if as
    many others can take their seats.
    """
    least, window = look.policy.over_evict_after, look.policy.over_evict_window
    seats = {node.name: node for node in look.seats(attempt)}
    told: dict[tuple[datetime, str], Accused] = {}
    for node in seats.values():
        for one in look.belief(node.name).accused:
            lately = one.job == attempt.job and len(one.nodes) > 1 and one.posterior >= LIKELY
            if lately and look.recent(one.at, window) and not _answered(look, one):
                told[one.at, one.channel.value] = one
    if least < 1 or len({at for at, _ in told}) < least:
        return ()
    groups = [frozenset(told[key].nodes) & frozenset(seats) for key in sorted(told)]
    names = frozenset.intersection(*groups) or groups[-1]
    if not names or len(names) > shared_from(look, len(seats)):
        return ()
    return tuple(seats[name] for name in sorted(names))


def _answered(look: Look, accusation: Accused) -> bool:
    """Say whether something came of an accusation: one of its nodes was taken out or released."""
    for name in accusation.nodes:
        node = look.node(name)
        if node is None:
            continue
        if node.pardoned_at is not None and node.pardoned_at >= accusation.at:
            return True
        if any(one.at >= accusation.at and one.fault != UNSEEN for one in node.history.troubles):
            return True
    return False


def _evict_suspects(look: Look, attempt: Attempt) -> None:
    group = suspects(look, attempt)
    if not group or weigh(look, attempt).shared is not None:
        return
    standing = [seat for seat in look.seats(attempt) if seat.state is NodeState.STANDBY]
    spec = look.job(attempt.job).spec
    others = [one for one in standing if one not in group]
    enough = len(others) + len(spares(look, attempt.cluster, spec)) >= len(group)
    if not enough or any(refusal(look, node, len(group)) for node in group):
        return
    names = ", ".join(node.name for node in group)
    reason = f"from {attempt.job}: named again and again, no fault found ({names}); to be checked"
    for node in group:
        end = NodeState.QUARANTINED
        move = MoveNode(node.name, node.state, end, reason, counts="eviction", fault=ACCUSED)
        look.do(move)


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
