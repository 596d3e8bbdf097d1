"""What an attempt's agents and its register say of the gang: who is in it, who misses whom.

The gang repairs itself inside its grant; the core only reads what came of it. Pure readings of the
snapshot, used by the modules of `reconcile`.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.beliefs import AgentBelief
from orchestrator.core.jobs import Attempt
from orchestrator.core.look import Look
from orchestrator.core.nodes import Node, NodeName
from orchestrator.runtime.reports import AgentReport, Stage

FINISHED, FAILED = Stage.FINISHED, Stage.FAILED


@dataclass(frozen=True, slots=True)
class Gang:
    """One attempt's gang as far as anybody told us."""

    members: tuple[NodeName, ...]  #: of the last generation, in its order
    formed: int  #: its seq in the register, or its number where there is none; 0 before the first
    missed: frozenset[NodeName]  #: nodes that an agent heard lately cannot hear
    heard: frozenset[NodeName]  #: nodes whose agent answers us
    waiting: bool  #: somebody cannot form within the grant
    live: frozenset[NodeName]  #: nodes whose agent has spoken and is not proven gone
    over: bool  #: the agent of some node says that its work here ended, well or not
    reports: dict[NodeName, AgentReport]  #: the last word of each agent, also of gone ones

    @property
    def lost(self) -> int | None:
        """Its generation, as in `formed`, if none of its members answers us; else None.

        Then nodes with a seat that do not hear them either may go on. As long as we hear one, its
        generation stands, whoever else does not hear it.
        """
        lost = bool(self.members) and self.heard.isdisjoint(self.members)
        return self.formed if lost else None


def read_gang(look: Look, attempt: Attempt) -> Gang:
    """Read one attempt's gang from the reports of its agents and from the register."""
    question = ("gang", attempt.job, attempt.number)
    return look.once(question, lambda: _read_gang(look, attempt))


def _read_gang(look: Look, attempt: Attempt) -> Gang:
    reports = {name: a.report for name, a in look.agents(attempt) if a.report is not None}
    alive = {name: agent for name, agent in look.agents(attempt) if live(agent)}
    heard = [name for name, agent in alive.items() if agent.silent_since is None]
    formed, members = _last_generation(look, attempt, reports)
    missed = {NodeName(peer) for name in heard for peer in reports[name].peers_lost}
    return Gang(
        members=members,
        formed=formed,
        missed=frozenset(missed),
        heard=frozenset(heard),
        waiting=any(reports[name].stage is Stage.WAITING for name in heard),
        reports=reports,
        live=frozenset(alive),
        over=any(one.stage is FINISHED or one.stage is FAILED for one in reports.values()),
    )


def unheard(look: Look, attempt: Attempt) -> list[Node]:
    """Return the seats that do not simply serve: no agent answers, or the node does not.

    By name, and not to be changed. Most looks have few of them to think about, or none.
    """
    question = ("unheard", attempt.job, attempt.number)
    return look.once(question, lambda: _unheard(look, attempt))


def _unheard(look: Look, attempt: Attempt) -> list[Node]:
    heard, seats = read_gang(look, attempt).heard, look.seats(attempt)
    return [
        one
        for one in seats
        if one.name not in heard or look.belief(one.name).unreached_since is not None
    ]


def vouched(look: Look, attempt: Attempt) -> frozenset[NodeName]:
    """Return the members that their own gang hears: it trains, and misses none of them.

    The controller need not reach a node itself: a partition on our side stops no gang.
    """
    gang = read_gang(look, attempt)
    for name in gang.members:
        report = gang.reports.get(name)
        if name in gang.heard and report is not None and report.stage is Stage.RUNNING:
            return frozenset(gang.members) - gang.missed
    return frozenset()


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
        for generation in seen.generations[-1:]:
            names = tuple(NodeName(member.node) for member in generation.members)
            last = (generation.seq, names)
    for report in reports.values():  # by name
        formed = report.generation_seq or report.generation or 0
        if formed > last[0] and report.members:
            last = (formed, tuple(NodeName(member) for member in report.members))
    return last
