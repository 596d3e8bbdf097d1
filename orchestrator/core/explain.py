"""Decisions -> plain sentences, with their evidence. For logs, alerts, `plan` and `why`."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.decisions import (
    Accept,
    AppendFence,
    CloseIncident,
    Decision,
    EndTrial,
    Enlist,
    Examine,
    GiveGrant,
    IssueGrant,
    LabelFiring,
    MoveAttempt,
    MoveJob,
    MoveNode,
    OpenAttempt,
    OpenIncident,
    Renew,
    Repair,
    SetAuthority,
    SetCadence,
    SetCordon,
    SettleOrder,
    SetVault,
    StartAgent,
    StopAgent,
    SweepNode,
    TestPairs,
)
from orchestrator.core.detectors import Authority
from orchestrator.core.firings import FiringLabel
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import OVER, Attempt, AttemptState, JobState
from orchestrator.core.look import LIVE, Look
from orchestrator.core.nodes import IDLE, NodeState
from orchestrator.core.placement import allowed, spares, unfit_to_seat
from orchestrator.core.policies import Policy
from orchestrator.core.recovery import shortage, waits_for


def explain(decision: Decision) -> str:  # noqa: C901 - one case per decision, nothing else
    """Return one plain sentence that says what is done and why."""
    match decision:
        case Enlist(seen=seen, cluster=cluster, reason=reason):
            return f"took {seen.node} into {cluster}, in burn-in: {reason}"
        case Renew(node=node, fresh=True, reason=reason):
            return f"{node} is another machine now, in burn-in: {reason}"
        case Renew(node=node, reason=reason):
            return f"{node} is described anew: {reason}"
        case MoveNode():
            return _explain_move(decision)
        case EndTrial(node=node, reason=reason):
            return f"{node} has earned its trust: {reason}"
        case SetCordon(node=node, cordon=None, reason=reason):
            return f"lifted the cordon of {node}: {reason}"
        case SetCordon(node=node, reason=reason):
            return f"cordoned {node}: {reason}"
        case Accept(job=job, reason=reason):
            return f"accepted {job}: {reason}"
        case MoveJob(job=job, end=end, reason=reason):
            return f"{job} is {end}: {reason}"
        case SetVault(job=job, url=url, reason=reason):
            return f"{job} goes on from the vault {url}: {reason}"
        case LabelFiring(node=node, detector=detector, label=FiringLabel.UNKNOWN, reason=reason):
            return f"nobody knows whether {detector} on {node} was right: {reason}"
        case LabelFiring(node=node, detector=detector, label=label, reason=reason):
            return f"{detector} on {node} was {label}: {reason}"
        case SetAuthority(detector=detector, authority=Authority.ACT, reason=reason):
            return f"{detector} may evict on its own word from now on: {reason}"
        case SetAuthority(detector=detector, reason=reason):
            return f"{detector} is only a suspicion from now on: {reason}"
        case SettleOrder(order=order, done=done, reason=reason):
            return f"order {order} {'done' if done else 'refused'}: {reason}"
        case OpenAttempt(job=job, attempt=attempt, cluster=cluster, reason=reason):
            return f"attempt {attempt} of {job} begins on {cluster}: {reason}"
        case MoveAttempt(job=job, attempt=attempt, end=end, outcome=outcome, reason=reason):
            ended = f" ({outcome})" if outcome is not None else ""
            return f"attempt {attempt} of {job} is {end}{ended}: {reason}"
        case SetCadence(job=job, attempt=attempt, every=every, reason=reason):
            return f"{job}, attempt {attempt}, writes a checkpoint each {_spell(every)}: {reason}"
        case OpenIncident(page=page, subject=subject, reason=reason):
            return f"{page} on {subject}: {reason}"
        case CloseIncident(page=page, subject=subject, reason=reason):
            return f"{page} on {subject} is over: {reason}"
        case AppendFence(job=job, attempt=attempt, reason=reason):
            return f"fenced off every attempt of {job} before {attempt}: {reason}"
        case StartAgent(node=node, job=job, attempt=attempt, reason=reason):
            return f"started an agent of {job}, attempt {attempt}, on {node}: {reason}"
        case IssueGrant():
            return _explain_grant(decision)
        case GiveGrant(node=node, job=job, number=number, reason=reason):
            return f"gave grant {number} of {job} to {node}: {reason}"
        case StopAgent(node=node, job=job, attempt=attempt, reason=reason):
            return f"stopped {job}, attempt {attempt}, on {node}: {reason}"
        case SweepNode(node=node, job=job, attempt=attempt, reason=reason):
            return f"swept {node} clean of {job}, attempt {attempt}: {reason}"
        case Repair(node=node, step=step, reason=reason):
            return f"asked the provider to {step} {node}: {reason}"
        case Examine(node=node, reason=reason):
            return f"examined {node} with active checks: {reason}"
        case TestPairs(round=number, pairs=pairs, reason=reason):
            return f"round {number + 1} of tests between nodes, {len(pairs)} pairs: {reason}"


def explain_fleet(fleet: Fleet, policy: Policy) -> tuple[str, ...]:
    """Return what every job and every idle node waits for, one sentence each."""
    look = Look(fleet, policy)
    said = [_explain_attempt(look, attempt) for attempt in look.attempts(LIVE)]
    for name in sorted(fleet.jobs):
        job = fleet.jobs[name]
        if job.state is JobState.PENDING:
            here = {c: len(spares(look, c, job.spec)) for c in allowed(look, job.spec)}
            have = ", ".join(f"{cluster} has {fit}" for cluster, fit in here.items())
            said.append(f"{name} waits for {job.spec.nodes_min} fit nodes ({have})")
        elif job.state in OVER:
            said.append(f"{name} is {job.state}: {job.reason}")
    for node in look.nodes():
        if node.state not in (NodeState.IN_USE, NodeState.STANDBY):
            said.append(f"{node.name} is {node.state}: {node.reason}")
    return tuple(said)


def why_not(fleet: Fleet, policy: Policy, job: str, node: str) -> str | None:
    """Return why a node cannot be given to a job now; None if it can."""
    look = Look(fleet, policy)
    found = {str(name): known for name, known in fleet.nodes.items()}[node]
    wish = {str(name): known for name, known in fleet.jobs.items()}[job]
    return unfit_to_seat(look, found, wish.spec)


def _spell(duration: timedelta) -> str:
    """Return a duration as people say it: "12m30s"."""
    minutes, seconds = divmod(round(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{n}{unit}" for n, unit in parts if n) or "0s"


def _explain_move(move: MoveNode) -> str:
    if move.counts == "eviction":
        return f"evicted {move.node} {move.reason}"
    match move.end:
        case NodeState.IN_USE | NodeState.STANDBY if move.start in IDLE:
            place = "a seat" if move.end is NodeState.IN_USE else "a standby's seat"
            return f"gave {move.node} {place} in {move.job}, attempt {move.attempt}"
        case NodeState.QUARANTINED:
            return f"put {move.node} in quarantine: {move.reason}"
        case NodeState.BURN_IN:
            return f"{move.node} earns its trust in burn-in: {move.reason}"
        case _:
            return f"{move.node} goes from {move.start} to {move.end}: {move.reason}"


def _explain_grant(grant: IssueGrant) -> str:
    standbys = f", {', '.join(grant.standbys)} standing by" if grant.standbys else ""
    seats = f"{', '.join(grant.nodes)}{standbys}"
    given_up = "" if grant.abandoned is None else " (its last members are given up)"
    return f"grant {grant.number} of {grant.job}: {seats}; {grant.reason}{given_up}"


def _explain_attempt(look: Look, attempt: Attempt) -> str:
    subject = f"{attempt.job}, attempt {attempt.number} on {attempt.cluster},"
    if attempt.state is AttemptState.OPENING:
        return f"{subject} is opening: {waits_for(look, attempt) or 'nothing holds it'}"
    short = shortage(look, attempt)
    if short is not None:
        return f"{subject} waits: {short}"
    seats = ", ".join(node.name for node in look.seats(attempt))
    return f"{subject} runs on {seats}"
