"""Ranks that hold their gang up, persistently: from what agents report of steps to findings.

Called by the daemon's eyes with each look at agents, and pure: the same snapshot gives the same
news. Ranks are compared over the newest steps that all of them told (`healthchecks.stragglers`: at
least 20 of at most 50 steps, slow in four of five of them). What comes of it are findings in the
gang's channel, which `assess` folds like any other: slower by a tenth is told and held against
nobody, by three tenths is a suspicion. Neither is ever critical, so it evicts nobody by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from healthchecks.stragglers import Straggler, compared, stragglers
from orchestrator.core.beliefs import NodeBelief
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import Attempt, AttemptState
from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import Probed
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.runtime.reports import AgentReport, RankReport, Stage

CHECK = "straggler"
AGAIN = timedelta(seconds=60)  #: what lasts is told again after that long


@dataclass(frozen=True, slots=True)
class _Seat:
    """Where a rank runs, and what was told of it."""

    node: NodeName
    report: AgentReport
    rank: RankReport
    at: datetime

    @property
    def component(self) -> str:
        return f"rank{self.rank.local_rank}"


@dataclass(slots=True)
class _Gang:
    """The ranks of one generation, by number."""

    seats: dict[int, _Seat] = field(default_factory=dict)

    def own(self) -> dict[int, tuple[float, ...]]:
        """Return each rank's own seconds up to the newest step that all have told."""
        told = {rank: one.rank for rank, one in self.seats.items() if one.rank.own_step is not None}
        newest = min((one.own_step or 0 for one in told.values()), default=0)
        ahead = {rank: (one.own_step or 0) - newest for rank, one in told.items()}
        return {rank: one.own[: max(0, len(one.own) - ahead[rank])] for rank, one in told.items()}


def slowness(fleet: Fleet) -> Iterator[Probed]:
    """Yield for each node what is new about its ranks: who is slow, and who is not any more."""
    for attempt in fleet.attempts:
        if attempt.state is not AttemptState.OPEN:
            continue
        gang = _gang(fleet, attempt)
        own = gang.own()
        if not own:
            continue
        roles = {rank: gang.seats[rank].rank.role for rank in own}
        slow = {one.rank: one for one in stragglers(own, roles)}
        for rank in sorted(compared(own, roles)):
            seat = gang.seats[rank]
            finding = _finding(seat, slow.get(rank), len(own[rank]))
            if _is_news(fleet.beliefs.nodes[seat.node], finding):
                yield Probed(seat.node, seat.at, seat.report.boot_id, (finding,), complete=False)


def _gang(fleet: Fleet, attempt: Attempt) -> _Gang:
    """Return the ranks of the newest generation whose agents answer."""
    seats = [] if attempt.grant is None else attempt.grant.seats
    heard: list[tuple[NodeName, AgentReport, datetime]] = []
    for name in seats:
        belief = fleet.beliefs.nodes.get(name)
        agent = None if belief is None else belief.agent(attempt.job, attempt.number)
        if agent is None or agent.report is None or agent.answered_at is None:
            continue
        gone = agent.gone_at is not None or agent.silent_since is not None
        if not gone and agent.report.stage is Stage.RUNNING and agent.report.generation is not None:
            heard.append((name, agent.report, agent.answered_at))
    newest = max((report.generation or 0 for _, report, _ in heard), default=0)
    return _Gang(
        {
            rank.rank: _Seat(name, report, rank, at)
            for name, report, at in heard
            if report.generation == newest
            for rank in report.ranks
        }
    )


def _finding(seat: _Seat, slow: Straggler | None, steps: int) -> Finding:
    severity, fault, code = Severity.OK, FaultClass.HARDWARE, ""
    evidence = f"rank {seat.rank.rank} works as long as its peers in the last {steps} steps"
    if slow is not None:
        severity = Severity.WARNING
        fault = FaultClass.HARDWARE if slow.suspected else FaultClass.APPLICATION
        code = "suspected" if slow.suspected else "slow"
        evidence = (
            f"rank {slow.rank} works {slow.ratio:.2f} times as long as its peers, "
            f"in {slow.persistence:.0%} of the last {steps} steps (score {slow.score:.1f})"
        )
    return Finding(
        check=CHECK,
        component=seat.component,
        severity=severity,
        fault=fault,
        evidence=evidence,
        channel=Channel.GANG,
        observed_at=seat.at,
        boot_id=seat.report.boot_id,
        code=code,
    )


def _is_news(belief: NodeBelief, finding: Finding) -> bool:
    known = next((one for one in belief.findings if one.key == finding.key), None)
    if known is None or known.boot_id != finding.boot_id:
        return finding.severity is not Severity.OK
    if (known.severity, known.code) != (finding.severity, finding.code):
        return finding.observed_at > known.observed_at
    lasts = finding.severity is not Severity.OK
    return lasts and finding.observed_at >= known.observed_at + AGAIN
