"""Agents: started where a seat needs one, swept where one is silent, stopped where none belongs.

Starting is idempotent and counted; a start is repeated only with proof that the last one ended, or
after a pause that doubles. A silent agent is swept only if its node answers and no peer of the gang
still hears it: one that merely does not answer us may be training.
"""

from __future__ import annotations

from orchestrator.core.beliefs import AgentBelief
from orchestrator.core.decisions import StartAgent, StopAgent, SweepNode
from orchestrator.core.gang import Gang, live, unheard
from orchestrator.core.jobs import Attempt, AttemptState
from orchestrator.core.look import LIVE, Look
from orchestrator.core.nodes import SEATED, JobName, Node, NodeName, NodeState
from orchestrator.core.placement import HOLDS
from orchestrator.core.verdicts import Verdict
from orchestrator.runtime.reports import Stage

FINAL = frozenset({Stage.FINISHED, Stage.FAILED})


def start_agents(look: Look, attempt: Attempt) -> None:
    """Start an agent on every seat that has none."""
    for node in unheard(look, attempt):
        if node.state in HOLDS and _may_start(look, attempt, node):
            starts = look.starts(node.name, attempt)
            reason = "its agent is gone; again" if starts else f"seat in {attempt.job}"
            look.ask(StartAgent(node.name, attempt.job, attempt.number, len(starts), reason))


def coming(look: Look, attempt: Attempt, node: Node) -> bool:
    """Say whether a seat without an agent may still get one within the policy's `seat_wait`."""
    belief = look.belief(node.name)
    agent = belief.agent(attempt.job, attempt.number)
    if live(agent):
        return False
    since = [node.since, attempt.since]
    if agent is not None and agent.gone_at is not None:
        since.append(agent.gone_at)
    return not look.due(max(since) + look.policy.seat_wait)


def sweep_silent(look: Look, attempt: Attempt, gang: Gang) -> None:
    """Sweep seats whose agent is silent though the node answers, unless a peer still hears it."""
    for node in unheard(look, attempt):
        agent = look.belief(node.name).agent(attempt.job, attempt.number)
        if agent is None or not _silent(look, node.name, agent):
            continue
        witnesses = gang.heard - {node.name}
        if node.name in gang.missed or not witnesses:
            reason = f"its agent is silent ({agent.silence}), the node answers"
            look.ask(SweepNode(node.name, attempt.job, attempt.number, reason))


def dismiss_agents(look: Look, node: Node) -> None:
    """Stop every agent that has no business on this node."""
    for agent in look.belief(node.name).agents:
        attempt = look.attempt(agent.job, agent.attempt)
        reason = _dismissal(look, node, agent, attempt)
        if reason is not None:
            _end(look, node.name, agent, reason)
    _end_unheard(look, node)


def _may_start(look: Look, attempt: Attempt, node: Node) -> bool:
    belief = look.belief(node.name)
    agent = belief.agent(attempt.job, attempt.number)
    if look.starting(node.name, attempt) or look.under_way(SweepNode, node.name):
        return False
    if agent is not None and agent.gone_at is None:
        return False
    if agent is not None and agent.report is not None and agent.report.stage in FINAL:
        return False
    if belief.unreached_since is not None or look.judge(node).verdict is Verdict.UNFIT:
        return False
    starts = look.starts(node.name, attempt)
    window = look.policy.agent_starts_window
    lately = look.lately(starts, window)
    if look.exhausted(lately, look.policy.agent_starts_max, window):
        return False
    return not lately or look.due(lately[-1] + look.policy.look_every * 2 ** (len(lately) - 1))


def _silent(look: Look, name: NodeName, agent: AgentBelief) -> bool:
    """Say whether an agent was silent long enough while its node answered."""
    belief, since = look.belief(name), agent.silent_since
    if since is None or agent.gone_at is not None or belief.unreached_since is not None:
        return False
    answered = belief.reached_at is not None and belief.reached_at >= since
    return answered and look.lasts(since, look.policy.sweep_after)


def _dismissal(look: Look, node: Node, agent: AgentBelief, attempt: Attempt | None) -> str | None:
    """Return why an agent must be stopped; None if it may stay, or is gone already."""
    if agent.gone_at is not None:
        return None
    if attempt is None:
        return f"no attempt {agent.attempt} of {agent.job} is known any more"
    if attempt.state not in LIVE:
        return f"attempt {attempt.number} of {attempt.job} is {attempt.state}: {attempt.reason}"
    seated = node.state in SEATED and (node.job, node.attempt) == (agent.job, agent.attempt)
    if seated and node.state is not NodeState.DRAINING:
        return None
    return _farewell(look, node, agent, attempt)


def _farewell(look: Look, node: Node, agent: AgentBelief, attempt: Attempt) -> str | None:
    """Wait for the grant that leaves a node out, and for its agent to acknowledge it."""
    grant = attempt.grant
    if grant is None:
        return f"{node.name} left {attempt.job} before it was granted"
    if node.name in grant.seats:
        helps = node.state is NodeState.DRAINING
        helps = helps or any(coming(look, attempt, seat) for seat in look.seats(attempt))
        return None if helps else f"{node.state}, and nobody can take its place: {node.reason}"
    report = agent.report
    accepted = report is None or report.grant >= grant.number or agent.silent_since is not None
    if accepted or look.due(grant.issued_at + look.policy.seat_wait):
        return f"grant {grant.number} of {attempt.job} leaves it out: {node.reason}"
    return None


def _end(look: Look, name: NodeName, agent: AgentBelief, reason: str) -> None:
    """Stop an agent that answers; sweep where it does not; where nobody answers, wait."""
    if look.unreached(name):
        return
    known = look.attempt(agent.job, agent.attempt) is not None
    if agent.silent_since is None and known:
        look.ask(StopAgent(name, agent.job, agent.attempt, reason))
    elif not known or _silent(look, name, agent):
        look.ask(SweepNode(name, agent.job, agent.attempt, reason))


def _end_unheard(look: Look, node: Node) -> None:
    """Sweep what was started for an attempt that closes but was never heard of."""
    if node.job is None or node.attempt is None or look.unreached(node.name):
        return
    attempt = look.attempt(JobName(node.job), node.attempt)
    if attempt is None or attempt.state is not AttemptState.CLOSING:
        return
    heard = look.belief(node.name).agent(attempt.job, attempt.number)
    if look.gone(node.name, attempt) or look.starting(node.name, attempt):
        return
    if heard is None or heard.gone_at is not None:
        reason = f"{attempt.job} is closing, and its agent was started there"
        look.ask(SweepNode(node.name, attempt.job, attempt.number, reason))
