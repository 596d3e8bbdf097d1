"""Decisions in plain sentences: for the log, the ledger's events, `holdfast plan` and Slack.

Each sentence says what is done to whom and ends with the reason that the decision carries.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.decisions import (
    Accept,
    AppendFence,
    CloseIncident,
    Decision,
    Enlist,
    GiveGrant,
    IssueGrant,
    MoveAttempt,
    MoveJob,
    MoveNode,
    OpenAttempt,
    OpenIncident,
    Repair,
    SetCordon,
    SettleOrder,
    StartAgent,
    StopAgent,
    SweepNode,
)
from orchestrator.core.jobs import AttemptState
from orchestrator.core.nodes import NodeState

#: What happens to a node that enters a state.
ENTERS: dict[NodeState, str] = {
    NodeState.BURN_IN: "{node} begins its burn-in",
    NodeState.PROBATION: "{node} is on probation",
    NodeState.SPARE: "{node} is a spare",
    NodeState.STANDBY: "{node} stands by for {job}",
    NodeState.IN_USE: "{node} works for {job}",
    NodeState.DRAINING: "{node} is being drained",
    NodeState.QUARANTINED: "{node} is quarantined",
    NodeState.REPAIRING: "{node} is being repaired",
    NodeState.RETIRED: "{node} is returned to its provider",
}


def explain(decision: Decision) -> str:
    """Return one sentence."""
    return f"{_what(decision)}: {decision.reason}" if decision.reason else _what(decision)


def _what(decision: Decision) -> str:
    match decision:
        case Enlist(seen=seen, cluster=cluster):
            return f"{seen.node} of {cluster} joins the fleet"
        case MoveNode(node=node, end=end, job=job):
            return ENTERS[end].format(node=node, job=job or "its job")
        case SetCordon(node=node, cordon=cordon):
            return f"{node} is cordoned" if cordon else f"{node} is not cordoned any more"
        case (
            Accept()
            | MoveJob()
            | SettleOrder()
            | OpenAttempt()
            | MoveAttempt()
            | OpenIncident()
            | CloseIncident()
        ):
            return _what_of_records(decision)
        case _:
            return _what_of_effects(decision)


def _what_of_records(
    decision: Accept
    | MoveJob
    | SettleOrder
    | OpenAttempt
    | MoveAttempt
    | OpenIncident
    | CloseIncident,
) -> str:
    match decision:
        case Accept(job=job):
            return f"{job} is accepted"
        case MoveJob(job=job, end=end):
            return f"{job} is {end}"
        case SettleOrder(order=order, done=done):
            return f"order {order} is {'carried out' if done else 'refused'}"
        case OpenAttempt(job=job, attempt=attempt, cluster=cluster):
            return f"attempt {attempt} of {job} opens on {cluster}"
        case MoveAttempt(job=job, attempt=attempt, end=end, outcome=outcome):
            how = f" ({outcome})" if outcome and end is AttemptState.CLOSING else ""
            return f"attempt {attempt} of {job} is {end}{how}"
        case OpenIncident(page=page, subject=subject):
            return f"incident {page} on {subject} opens"
        case CloseIncident(page=page, subject=subject):
            return f"incident {page} on {subject} is over"


def _what_of_effects(
    decision: AppendFence | StartAgent | IssueGrant | GiveGrant | StopAgent | SweepNode | Repair,
) -> str:
    match decision:
        case AppendFence(job=job, attempt=attempt):
            return f"attempt {attempt} of {job} is fenced in the register"
        case StartAgent(node=node, job=job):
            return f"the agent of {job} is started on {node}"
        case IssueGrant(job=job, number=number, nodes=nodes, standbys=standbys):
            more = f", {_list(standbys)} on standby" if standbys else ""
            return f"grant {number} of {job} is {_list(nodes)}{more}"
        case GiveGrant(node=node, job=job, number=number):
            return f"grant {number} of {job} is given to {node}"
        case StopAgent(node=node, job=job):
            return f"the agent of {job} on {node} is stopped"
        case SweepNode(node=node, job=job):
            return f"{node} is swept of {job}"
        case Repair(node=node, step=step):
            return f"{node}: {step}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nobody"
