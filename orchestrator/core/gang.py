"""What an attempt's agents and its register say of the gang: who is in it, who misses whom.

The gang repairs itself inside its grant; the core only reads what came of it. Pure readings of the
snapshot, used by the modules of `reconcile`.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.beliefs import AgentBelief
from orchestrator.core.jobs import Attempt
from orchestrator.core.look import Look
from orchestrator.core.nodes import NodeName
from orchestrator.runtime.reports import AgentReport, Stage


@dataclass(frozen=True, slots=True)
class Gang:
    """One attempt's gang as far as anybody told us."""

    members: tuple[NodeName, ...]  #: of the last generation, in its order
    formed: int  #: its seq in the register, or its number where there is none; 0 before the first
    missed: frozenset[NodeName]  #: nodes that an agent heard lately cannot hear
    heard: frozenset[NodeName]  #: nodes whose agent answers us
    waiting: bool  #: somebody cannot form within the grant
    reports: dict[NodeName, AgentReport]  #: the last word of each agent, also of gone ones


def read_gang(look: Look, attempt: Attempt) -> Gang:
    """Read one attempt's gang from the reports of its agents and from the register."""
    question = ("gang", attempt.job, attempt.number)
    return look.once(question, lambda: _read_gang(look, attempt))


def _read_gang(look: Look, attempt: Attempt) -> Gang:
    agents = dict(look.agents(attempt))
    reports = {name: a.report for name, a in agents.items() if a.report is not None}
    heard = {name: report for name, report in reports.items() if answers(agents[name])}
    formed, members = _last_generation(look, attempt, reports)
    return Gang(
        members=members,
        formed=formed,
        missed=frozenset(NodeName(peer) for one in heard.values() for peer in one.peers_lost),
        heard=frozenset(heard),
        waiting=any(report.stage is Stage.WAITING for report in heard.values()),
        reports=reports,
    )


def live(agent: AgentBelief | None) -> bool:
    """Say whether an agent has spoken and is not proven gone. Silence is not death."""
    return agent is not None and agent.report is not None and agent.gone_at is None


def answers(agent: AgentBelief | None) -> bool:
    """Say whether an agent is live and answered when it was asked last."""
    return live(agent) and agent is not None and agent.silent_since is None


def address(report: AgentReport) -> str:
    """Return where an agent listens, and which process it is: "host:port#agent"."""
    return f"{report.host}:{report.port}#{report.agent}"


def _last_generation(
    look: Look, attempt: Attempt, reports: dict[NodeName, AgentReport]
) -> tuple[int, tuple[NodeName, ...]]:
    last: tuple[int, tuple[NodeName, ...]] = (0, ())
    seen = look.register(attempt.job).seen
    if seen is not None and seen.fence is not None and seen.fence.attempt == attempt.number:
        for generation in seen.generations:
            names = tuple(NodeName(member.node) for member in generation.members)
            last = (generation.seq, names)
    for name in sorted(reports):
        report = reports[name]
        formed = report.generation_seq or report.generation or 0
        if formed > last[0] and report.members:
            last = (formed, tuple(NodeName(member) for member in report.members))
    return last
