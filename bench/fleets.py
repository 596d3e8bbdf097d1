"""A fleet that is only told what changed, for measuring the deciding part.

Clusters of 100 nodes, most with one job that holds 90 of them and a standby. It lives through the
very ledger (in memory) and the very functions that the daemon uses; the nodes' side is a sketch
that carries out what is decided at once and answers with what a real one would say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from orchestrator.core.assess import assess
from orchestrator.core.decisions import (
    AppendFence,
    Effect,
    GiveGrant,
    LedgerOnly,
    Repair,
    StartAgent,
    StopAgent,
    SweepNode,
)
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import JobSpec
from orchestrator.core.nodes import (
    ClusterName,
    JobName,
    Machine,
    MachineId,
    NodeName,
    ProviderName,
)
from orchestrator.core.observations import (
    AgentGone,
    AgentSeen,
    InventorySeen,
    MachineSeen,
    NodeReached,
    Observation,
    OrderKind,
    Power,
    Probed,
    RegisterSeen,
)
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import new_recall, reconcile
from orchestrator.core.submission import plain
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.ledger.memory import MemoryLedger
from orchestrator.runtime.lineage import Fence
from orchestrator.runtime.reports import PROTOCOL, AgentReport, Stage

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
CHECKS = ("disk", "gpu-count", "nic", "ntp", "xid")
SIZE, GANG = 100, 90  #: nodes of a cluster, nodes of its job


@dataclass
class Sketch:
    """The fleet, its ledger, and what its nodes would say."""

    sizes: dict[str, int]  #: nodes of each cluster
    jobs: int  #: so many of the clusters, the first ones, have a job
    gang: int = GANG
    policy: Policy = field(default_factory=Policy)
    now: datetime = BEGIN
    rounds: int = 0  #: of deciding so far

    def __post_init__(self) -> None:
        """Enlist every node, let it burn in, and start the jobs."""
        self.ledger = MemoryLedger(keep=10_000)
        self.recall = new_recall()
        token = self.ledger.acquire("bench", timedelta(days=10_000), self.now)
        assert token is not None
        self.token = token
        can = frozenset({"reboot"})
        self.clusters = tuple(
            Cluster(ClusterName(name), ProviderName("p"), can) for name in self.sizes
        )
        self.boots: dict[NodeName, int] = {}
        self.accepted: dict[NodeName, int] = {}  #: grant that its agent holds
        self.inbox: deque[Observation] = deque()
        for name, size in self.sizes.items():
            names = [NodeName(f"{name}-{number:03d}") for number in range(size)]
            self.boots.update(dict.fromkeys(names, 1))
            machines = tuple(self.machine(one) for one in names)
            self.inbox.append(InventorySeen(ClusterName(name), "p", self.now, machines))
        self.settle()
        self.pass_time(self.policy.burn_in + timedelta(seconds=1))
        self.probe(self.boots)
        self.settle()
        for name in list(self.sizes)[: self.jobs]:
            spec = JobSpec(
                self.gang - 10,
                self.gang,
                clusters=(ClusterName(name),),
                register=f"/registers/{name}",
            )
            self.ledger.order(OrderKind.SUBMIT, f"job-{name}", "ann", "", plain(spec), self.now)
        self.inbox.extend(self.ledger.orders_open())
        self.settle()

    # --- what nodes say ---------------------------------------------------------------------

    def machine(self, name: NodeName) -> MachineSeen:
        """Return what the provider lists."""
        serials = tuple(f"{name}/{place}/{self.boots[name] // 1_000}" for place in range(8))
        machine = Machine(MachineId(f"i-{name}"), "h100", 8, serials)
        return MachineSeen(name, "first", machine, Power.RUNNING, self.boot(name))

    def boot(self, name: NodeName) -> str:
        """Return the id of a node's present boot."""
        return f"{name}/{self.boots[name]}"

    def probe(self, names: Iterable[NodeName], fault: Finding | None = None) -> None:
        """Let nodes be probed: fine, or with this fault."""
        for name in names:
            fine = (
                Finding(
                    check,
                    "host",
                    Severity.OK,
                    FaultClass.HARDWARE,
                    "",
                    Channel.NODE,
                    self.now,
                    self.boot(name),
                )
                for check in CHECKS
            )
            found = (*fine, *((replace(fault, boot_id=self.boot(name)),) if fault else ()))
            self.inbox.append(Probed(name, self.now, self.boot(name), found, complete=True))

    def report(self, name: NodeName, job: JobName, attempt: int) -> AgentReport:
        """Return what the agent of a node says."""
        grant = next(
            (one.grant for one in self.ledger.attempts(job) if one.number == attempt), None
        )
        held = self.accepted.get(name, 0)
        runs = grant is not None and held == grant.number and name in grant.nodes
        members = tuple(grant.nodes) if grant is not None and held else ()
        return AgentReport(
            protocol=PROTOCOL,
            node=name,
            job=job,
            attempt=attempt,
            agent=f"{name}-{self.boots[name]}",
            boot_id=self.boot(name),
            pid=1,
            host="10.0.0.1",
            port=4000,
            at=self.now.timestamp(),
            started_at=0.0,
            stage=Stage.RUNNING if runs else Stage.STANDBY if held else Stage.IDLE,
            grant=held,
            token=1,
            generation=held or None,
            generation_seq=held + 1 if held else None,
            members=members,
            peers_lost=(),
            ranks=(),
            notes=(),
        )

    def peers(self, job: JobName, attempt: int) -> tuple[NodeName, ...]:
        """Return the seats of an attempt's newest grant."""
        found = [one.grant for one in self.ledger.attempts(job) if one.number == attempt]
        return found[0].seats if found and found[0] is not None else ()

    def carry_out(self, effect: Effect) -> Iterator[Observation]:
        """Do it at once, and yield what would be seen of it."""
        match effect:
            case AppendFence(job=job, attempt=attempt):
                by = next(one for one in self.ledger.jobs() if one.name == job).signature
                fence = Fence(attempt, f"f{attempt}", 1, attempt, self.now.timestamp(), by)
                yield RegisterSeen(job, self.now, fence, (), None, 0, 0)
            case StartAgent(node=node, job=job, attempt=attempt):
                self.accepted[node] = 0
                yield AgentSeen(node, self.now, self.report(node, job, attempt))
            case GiveGrant(node=node, job=job, attempt=attempt, number=number):
                for name in (node, *self.peers(job, attempt)):  # agents hand it on
                    if self.accepted.get(name, number) < number or name == node:
                        self.accepted[name] = number
                        yield AgentSeen(name, self.now, self.report(name, job, attempt))
            case (
                StopAgent(node=node, job=job, attempt=attempt)
                | SweepNode(node=node, job=job, attempt=attempt)
            ):
                yield AgentGone(node, job, attempt, self.now, "swept")
            case Repair(node=node):
                self.boots[node] += 1
                yield NodeReached(node, self.now, self.boot(node))

    # --- time and deciding ------------------------------------------------------------------

    def pass_time(self, span: timedelta) -> None:
        """Let time pass; nothing is decided meanwhile."""
        self.now += span

    def fleet(self) -> Fleet:
        """Return the snapshot."""
        return self.ledger.snapshot(self.now, self.clusters)

    def round(self) -> bool:
        """Record what was seen, decide, apply, act; say whether anything was decided."""
        self.rounds += 1
        if self.inbox:
            seen, self.inbox = list(self.inbox), deque()
            self.ledger.record(self.token, seen, self.now, assess)
        decisions = reconcile(self.fleet(), self.policy, self.recall).decisions
        for decision in decisions:
            if isinstance(decision, LedgerOnly):
                self.ledger.apply(self.token, decision, self.now)
        for decision in decisions:
            if not isinstance(decision, LedgerOnly):
                self.act(decision)
        return bool(decisions)

    def act(self, effect: Effect) -> None:
        """Write the intent, carry it out, write the outcome."""
        limit = self.now + timedelta(minutes=1)
        intent = self.ledger.intend(self.token, effect, self.now, limit)
        if intent is not None:
            self.inbox.extend(self.carry_out(effect))
            self.ledger.settle(self.token, intent.key, self.now, ok=True, text="done", data={})

    def settle(self, rounds_max: int = 200) -> None:
        """Go on, a second per round, until nothing is decided and nothing is to be told."""
        for _ in range(rounds_max):
            decided = self.round()
            self.pass_time(timedelta(seconds=1))
            if not decided and not self.inbox:
                return
        raise AssertionError(f"{rounds_max} rounds, and it still decides")

    def fail(self, name: NodeName, cluster: str) -> None:
        """Break a GPU of a node, and go on until its gang is whole and the node a spare again.

        Some fifty rounds: eviction, spare seated, agent started, grant given to all, agent of the
        old one stopped, reboot, burn-in, and what a probe each minute says of these few nodes.
        """
        fault = Finding(
            "xid",
            "gpu0",
            Severity.CRITICAL,
            FaultClass.HARDWARE,
            "GPU has fallen off the bus",
            Channel.NODE,
            self.now,
            code="79",
        )
        here = [one for one in self.fleet().nodes.values() if one.cluster == cluster]
        self.probe(one.name for one in here if one.job is None)  # lest spares are stale
        self.probe([name], fault)
        self.settle()
        for _ in range(35):
            self.pass_time(timedelta(seconds=58))
            self.probe([name])
            self.settle()


def clusters(count: int, size: int = SIZE) -> dict[str, int]:
    """Return so many clusters of one size."""
    return {f"c{number:03d}": size for number in range(count)}
