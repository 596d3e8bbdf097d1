"""The controller's eyes in the simulated world: the answers that its observers would bring.

Sampled lazily: a real daemon asks everybody again and again and mostly hears the same. Here a bell
rings, on the very grid of `daemon.rhythm`, only if some answer would differ; before an answer turns
into silence, the last one before the change is given too, for that is what would have been heard.
Spares are probed anew whenever something is decided near them, so that no verdict grows stale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import OVER, AttemptState
from orchestrator.core.nodes import ClusterName, JobName, NodeName, NodeState
from orchestrator.core.observations import (
    AgentGone,
    AgentSeen,
    AgentSilent,
    InventorySeen,
    NodeReached,
    NodeUnreached,
    Observation,
    Probed,
    ProviderFailed,
    RegisterSilent,
)
from orchestrator.core.policies import Policy
from orchestrator.core.verdicts import Finding
from orchestrator.daemon.loop import Workers
from orchestrator.daemon.rhythm import Bell, rhythm
from orchestrator.runtime.reports import AgentReport
from orchestrator.simulation.agenda import moment
from orchestrator.simulation.machine import Run, SimMachine
from orchestrator.simulation.plan import Kind
from orchestrator.simulation.world import World

IDLE = frozenset({NodeState.PROBATION, NodeState.SPARE, NodeState.QUARANTINED, NodeState.BURN_IN})
LOOKED_AT = IDLE | {NodeState.REPAIRING}  #: by checks, where no agent does it
REFUSED, NO_ROUTE = "connection refused", "no route to host"
ERRORS = {
    "5xx": "503 Service Unavailable",
    "429": "429 Too Many Requests",
    "timeout": "no answer within 10 s",
}


@dataclass(slots=True)
class Heard:
    """What an agent last answered, and when we know it would still have."""

    report: AgentReport
    until: float


@dataclass(eq=False)
class SimEyes:
    """Sees the world for one controller; `Watcher` of the world, `Sight` of the loop."""

    world: World
    policy: Policy
    ring: Callable[[Bell, float], None]  #: asks for a bell at a second
    fleet: Callable[[], Fleet]
    workers: Workers
    post: Callable[[Sequence[Observation]], None]
    skew: Callable[[], float] = lambda: 0.0  #: seconds that the controller's clock is ahead
    agents: dict[tuple[NodeName, Run], None] = field(default_factory=dict)
    nodes: dict[NodeName, None] = field(default_factory=dict)
    listings: dict[ClusterName, None] = field(default_factory=dict)
    registers: dict[JobName, None] = field(default_factory=dict)
    heard: dict[tuple[NodeName, Run], Heard] = field(default_factory=dict)
    probed: dict[NodeName, float] = field(default_factory=dict)
    looked: dict[NodeName, tuple[str, tuple[Kind, ...]]] = field(default_factory=dict)
    listed: dict[ClusterName, list[tuple[float, InventorySeen]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Learn the rhythm of the bells."""
        self._every = {bell: gap.total_seconds() for bell, gap in rhythm(self.policy).items()}

    @property
    def pools(self) -> Workers:
        """Where looking and acting is done."""
        return self.workers

    # --- what the world tells ---------------------------------------------------------------------

    def agent_changed(self, node: NodeName, run: Run) -> None:
        """Hear that an agent would answer something else, or nothing."""
        known = self.heard.get((node, run))
        if known is not None and (node, run) not in self.agents:
            known.until = self.world.now
        self.agents[node, run] = None
        self._ring(Bell.AGENTS)

    def node_changed(self, node: NodeName) -> None:
        """Hear that checks on a node would say something else, or cannot run."""
        self.nodes[node] = None
        self._ring(Bell.PROBES)

    def listing_changed(self, cluster: ClusterName) -> None:
        """Hear that the provider would list something else, or nothing."""
        self.listings[cluster] = None
        self._ring(Bell.INVENTORY)

    def register_changed(self, job: JobName) -> None:
        """Hear that a register would read otherwise, or not at all."""
        self.registers[job] = None
        self._ring(Bell.REGISTERS)

    def _ring(self, bell: Bell) -> None:
        every = self._every[bell]
        self.ring(bell, (math.floor(self.world.now / every) + 1) * every)

    # --- what the loop asks -----------------------------------------------------------------------

    def look(self, bell: Bell, fleet: Fleet, token: int) -> None:
        """Look at everything that this bell means, changed or not: the first look after a start."""
        match bell:
            case Bell.INVENTORY:
                self.listings.update(dict.fromkeys(self.world.clusters))
            case Bell.AGENTS:
                self.agents.update(dict.fromkeys(_asked(fleet)))
            case Bell.REGISTERS:
                self.registers.update(dict.fromkeys(_read(fleet)))
            case Bell.PROBES:
                self.nodes.update(
                    dict.fromkeys(n for n, node in fleet.nodes.items() if node.state in LOOKED_AT)
                )
        self.post(self.changed(bell, fleet))

    def remember(self, observations: Iterable[Observation]) -> None:
        """Confirm the notes and answers that the ledger holds now."""
        for seen in observations:
            if not isinstance(seen, AgentSeen):
                continue
            run = (JobName(seen.report.job), seen.report.attempt)
            agent = self.world.machines[seen.node].agents.get(run)
            if agent is not None and agent.nonce == seen.report.agent:
                last = max((note.number for note in seen.report.notes), default=0)
                agent.notes = [note for note in agent.notes if note.number > last]
                self.world.gangs[run].confirmed(seen.node)

    def changed(self, bell: Bell, fleet: Fleet) -> list[Observation]:
        """Return what a bell brings of everything that would answer otherwise than last time."""
        match bell:
            case Bell.AGENTS:
                asked, self.agents = self.agents, {}
                return [one for key in asked for one in self._ask(*key, fleet)]
            case Bell.PROBES:
                nodes, self.nodes = self.nodes, {}
                return [one for node in nodes for one in self._probe(node, fleet)]
            case Bell.INVENTORY:
                listings, self.listings = self.listings, {}
                return [self._list(cluster) for cluster in listings]
            case Bell.REGISTERS:
                registers, self.registers = self.registers, {}
                return [self._read(job) for job in registers if job in fleet.jobs]

    def refresh(self, clusters: Iterable[ClusterName], fleet: Fleet) -> list[Observation]:
        """Probe nodes of some clusters whose last probe is a rhythm ago.

        Idle ones, because an old answer seats nobody; and those with a fault that shows, because an
        old finding evicts nobody.
        """
        every = self.policy.probe_every.total_seconds()
        seen: list[Observation] = []
        for cluster in clusters:
            for name in self.world.clusters[cluster]:
                node = fleet.nodes.get(name)
                if node is None or self.world.now - self.probed.get(name, -math.inf) < every:
                    continue
                if node.state in IDLE:
                    seen.extend(self._probe(name, fleet))
                elif self.world.machines[name].symptoms(self.world.now):
                    seen.extend(self._retell(name))
        return seen

    # --- one look each ----------------------------------------------------------------------------

    def _at(self, second: float) -> float:
        return second + self.skew()

    def _ask(self, node: NodeName, run: Run, fleet: Fleet) -> Iterator[Observation]:
        belief = fleet.beliefs.nodes.get(node)
        known = belief.agent(*run) if belief is not None else None
        if known is None or known.gone_at is not None or not _open(fleet, run):
            return
        machine, now = self.world.machines[node], moment(self._at(self.world.now))
        agent = machine.agents.get(run)
        if machine.reachable and agent is not None:
            yield from self.answer(node, run)
            return
        yield from self._last_answer(node, run)
        if not machine.reachable:
            yield AgentSilent(node, *run, now, REFUSED if machine.up else NO_ROUTE)
            yield NodeUnreached(node, now, NO_ROUTE)
        elif run in machine.gone:
            yield NodeReached(node, now, machine.boot_id)
            yield AgentGone(node, *run, now, f"guard: {machine.gone[run]}")
        else:
            yield NodeReached(node, now, machine.boot_id)
            yield AgentSilent(node, *run, now, REFUSED)

    def answer(self, node: NodeName, run: Run) -> Iterator[Observation]:
        """Return what a live agent answers: its report, and what the checks beside it say."""
        machine, now = self.world.machines[node], self.world.now
        report = self.world.gangs[run].report(node)
        self.heard[node, run] = Heard(report, now)
        yield AgentSeen(node, moment(self._at(now)), report)
        looks = (machine.boot_id, machine.symptoms(now))
        if self.looked.get(node) != looks:  # else the checks beside it say the same as last time
            self.looked[node], self.probed[node] = looks, now
            findings = self._findings(machine)
            yield self._looked_at(node, findings)

    def _retell(self, node: NodeName) -> Iterator[Observation]:
        """Return what the checks beside a live agent say once more."""
        machine, now = self.world.machines[node], self.world.now
        if machine.reachable and machine.agents:
            self.probed[node] = now
            yield self._looked_at(node, self._findings(machine))

    def _last_answer(self, node: NodeName, run: Run) -> Iterator[Observation]:
        """Return the answer that the last bell before the change would have brought."""
        known = self.heard.pop((node, run), None)
        every = self._every[Bell.AGENTS]
        if known is not None:
            at = math.floor(known.until / every) * every
            if at > 0:
                yield AgentSeen(node, moment(self._at(at)), known.report)

    def _findings(self, machine: SimMachine) -> tuple[Finding, ...]:
        return machine.findings(self.world.now)

    def _looked_at(self, node: NodeName, findings: tuple[Finding, ...]) -> Probed:
        machine, now = self.world.machines[node], self.world.now
        at, clock_at = moment(self._at(now)), moment(now + machine.skew)
        return Probed(node, at, machine.boot_id, findings, complete=True, clock_at=clock_at)

    def _probe(self, node: NodeName, fleet: Fleet) -> Iterator[Observation]:
        known = fleet.nodes.get(node)
        if known is None or known.state not in LOOKED_AT:
            return
        machine, at = self.world.machines[node], moment(self._at(self.world.now))
        if not machine.reachable:
            yield NodeUnreached(node, at, NO_ROUTE)
            return
        self.probed[node] = self.world.now
        yield self._looked_at(node, self._findings(machine))

    def _list(self, cluster: ClusterName) -> Observation:
        ails = self.world.api.get(cluster) or []
        at = moment(self._at(self.world.now))
        provider = next(c.provider for c in self.world.plan.clusters if c.name == cluster)
        error = next((ERRORS[one] for one in ails if one in ERRORS), None)
        if error is not None:
            return ProviderFailed(cluster, at, error)
        machines = tuple(self.world.machines[n].listed() for n in self.world.clusters[cluster])
        if "empty" in ails:
            return InventorySeen(cluster, provider, at, ())
        if "stale" in ails and self.listed.get(cluster):
            return InventorySeen(cluster, provider, at, self.listed[cluster][-1][1].machines)
        if "part" in ails:
            return InventorySeen(cluster, provider, at, machines[: len(machines) // 2])
        seen = InventorySeen(cluster, provider, at, machines)
        self.listed[cluster] = [(self.world.now, seen)]
        return seen

    def _read(self, job: JobName) -> Observation:
        register = self.world.registers[job]
        if register.down:
            return RegisterSilent(job, moment(self._at(self.world.now)), "no answer within 5 s")
        return register.seen(self._at(self.world.now))


def _asked(fleet: Fleet) -> Iterator[tuple[NodeName, Run]]:
    for node, belief in fleet.beliefs.nodes.items():
        for agent in belief.agents:
            yield node, (agent.job, agent.attempt)


def _read(fleet: Fleet) -> Iterator[JobName]:
    for name, job in fleet.jobs.items():
        if job.state not in OVER and job.spec.register is not None:
            yield name


def _open(fleet: Fleet, run: Run) -> bool:
    return any(
        (a.job, a.number) == run and a.state is not AttemptState.CLOSED for a in fleet.attempts
    )
