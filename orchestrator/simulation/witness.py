"""Sees to it that what must never happen does not: checked while a world runs, by rules of its own.

It shares no code with what it watches: what counts in a register, whose ranks run, how often a
budget was used is worked out here again, the simple way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.decisions import LedgerOnly, MoveNode
from orchestrator.core.nodes import JobName, NodeName
from orchestrator.core.policies import Policy
from orchestrator.runtime.lineage import Because, Cause, Commit, Fence, Generation
from orchestrator.simulation.agenda import HOUR
from orchestrator.simulation.machine import Run
from orchestrator.simulation.world import World

RECENT = 900.0  #: seconds after a fault in which it may still explain that ranks stopped


class BrokenPromiseError(AssertionError):
    """Something happened that must never happen."""


@dataclass(eq=False)
class Witness:
    """Watches one world; raises `BrokenPromiseError` at once, or counts where asked."""

    world: World
    policy: Policy
    strict: bool = True
    killed: list[str] = field(default_factory=list)  #: healthy gangs that were stopped
    trouble: dict[NodeName, float] = field(default_factory=dict)  #: when a node had something last
    alone: set[JobName] = field(default_factory=set)  #: whose ranks ended as their job asked
    evicted: set[NodeName] = field(default_factory=set)  #: for something that they then had
    _evictions: dict[str, deque[float]] = field(default_factory=dict)

    def node_struck(self, node: NodeName) -> None:
        """See something of its own befall a node, or end."""
        self.trouble[node] = self.world.now

    # --- healthy jobs -----------------------------------------------------------------------------

    def ranks_stopped(self, run: Run, because: Because, since: float) -> None:
        """See the ranks of a running generation stop: some node of it must have something."""
        members = self.world.gangs[run].members
        explained = any(self.explains(node, since) for node in members)
        # A controller that dies in between gives the grant that leaves a node out much later.
        told = because.cause is Cause.GRANT and because.node in self.evicted
        if told:
            self.evicted.remove(NodeName(because.node))
        if because.cause is Cause.VERIFICATION or explained or told:
            return
        self._broken(f"healthy ranks of {run[0]}/{run[1]} were stopped: {because}")

    def left_alone(self, node: NodeName, run: Run) -> None:
        """See an agent end its ranks, as its job asks: it must really be out of touch."""
        job = self.world.jobs[run[0]]
        if job.stop_after is None:
            self._broken(f"{node} ended its ranks alone; {run[0]} does not ask for that")
        if self.world.hears(node) and self.world.writes(node, run[0]):
            self._broken(f"{node} ended its ranks alone, and is in touch")
        self.alone.add(run[0])
        self.trouble[node] = self.world.now

    def explains(self, node: NodeName, since: float) -> bool:
        """Say whether a node has, or had shortly before a moment, something of its own."""
        machine = self.world.machines[node]
        if machine.faults or not machine.on or machine.cut:
            return True
        return since - self.trouble.get(node, -RECENT) < RECENT

    def resumed(self, run: Run, work: float) -> None:
        """See a gang make its next step: each node in one gang only, one ruling generation."""
        for node in self.world.gangs[run].members:
            for other in self.world.machines[node].agents:
                if other != run and node in self._running(other):
                    self._broken(f"{node} runs ranks of {run} and of {other}")

    def _running(self, run: Run) -> tuple[NodeName, ...]:
        gang = self.world.gangs[run]
        return gang.members if gang.training else ()

    # --- registers --------------------------------------------------------------------------------

    def read_registers(self) -> None:
        """Work out again which commits count, and compare; two writers never commit."""
        for job, register in self.world.registers.items():
            mine = _count(register.records)
            theirs = [commit.seq for commit in register.lineage.commits]
            if mine != theirs:
                self._broken(f"the register of {job} counts {theirs}, it should be {mine}")

    # --- limits -----------------------------------------------------------------------------------

    def applied(self, decision: LedgerOnly, at: datetime) -> None:
        """See a decision enter the ledger: evictions stay within the hour's budget."""
        if not isinstance(decision, MoveNode) or decision.counts != "eviction":
            return
        cluster = self.world.machines[decision.node].cluster
        moments = self._evictions.setdefault(cluster, deque())
        now = self.world.now
        keep = self.evicted.add if self.explains(decision.node, now) else self.evicted.discard
        keep(decision.node)
        moments.append(now)
        while moments[0] <= now - HOUR:
            moments.popleft()
        most = max(1, self.policy.evictions_per_hour)
        if len(moments) > most:
            self._broken(f"{len(moments)} evictions on {cluster} within an hour, {most} allowed")

    def _broken(self, what: str) -> None:
        self.killed.append(what)
        if self.strict:
            raise BrokenPromiseError(f"at {self.world.now:.3f} s: {what}")


def _count(records: list[Fence | Generation | Commit]) -> list[int]:
    """Return the seqs of the commits that count, by the rule of ARCHITECTURE.md read anew."""
    fence: Fence | None = None
    ruler: int | None = None
    latest: int | None = None
    counted: list[int] = []
    for record in records:
        match record:
            case Fence(seq=seq, token=token, attempt=attempt):
                expected = 1 if fence is None else fence.attempt + 1
                if attempt == expected and (fence is None or token >= fence.token):
                    fence, ruler, latest = record, seq, None
            case Generation(seq=seq, under=under, after=after):
                if fence is not None and under == fence.seq and after == latest:
                    ruler = latest = seq
            case Commit(seq=seq, under=under):
                if ruler is not None and under == ruler:
                    counted.append(seq)
    return counted
