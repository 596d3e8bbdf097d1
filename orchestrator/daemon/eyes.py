"""Where to look when a bell rings: makes the list from the snapshot, looks in the pools.

Observers do the looking; what they saw goes back to the loop by `post`. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from orchestrator.core.cohorts import cohort_key
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import OVER, AttemptState
from orchestrator.core.nodes import ClusterName, JobName, Node, NodeName, NodeState
from orchestrator.core.observations import AgentSeen, Observation, RegisterSilent
from orchestrator.core.outlook import hurries
from orchestrator.core.slowness import slowness
from orchestrator.daemon.clock import Clock
from orchestrator.daemon.pools import Pools
from orchestrator.daemon.rhythm import CLOSER, Bell
from orchestrator.engines.api import AgentAddress
from orchestrator.engines.site import Keys, Site
from orchestrator.errors import HoldfastError
from orchestrator.observers.inventory import list_machines
from orchestrator.observers.probes import probe_node
from orchestrator.observers.registers import read_register
from orchestrator.observers.reports import Asked, ask_agent
from orchestrator.runtime.register import Register

NO_HURRY: Mapping[str, float] = {}
Post = Callable[[tuple[Observation, ...]], None]


@dataclass(slots=True)
class Eyes:
    """Everything the daemon looks with."""

    sites: Mapping[ClusterName, Site]
    keys: Keys
    pools: Pools
    clock: Clock
    post: Post
    register: Callable[[JobName, Fleet], Register]
    probe_every: timedelta
    hurries: dict[str, float] = field(default_factory=dict)  #: by cohort: how often to look
    recorded: dict[str, int] = field(default_factory=dict)  #: agent nonce -> highest note

    def look(self, bell: Bell, fleet: Fleet, token: int) -> None:
        """Look at what this bell means."""
        match bell:
            case Bell.INVENTORY:
                for site in self.sites.values():
                    self._list(site)
            case Bell.AGENTS:
                for asked in agents_to_ask(fleet, self.recorded):
                    node = fleet.nodes[asked.node]
                    every = self.sites[node.cluster].health_every
                    every /= hurry_of(node, self.hurries)
                    self._ask(node.cluster, replace(asked, health_seconds=every), token)
                if slow := tuple(slowness(fleet)):
                    self.post(slow)
            case Bell.PROBES:
                self.hurries = hurries(fleet.beliefs.cohorts, fleet.now)
                for name in nodes_to_probe(fleet, self.probe_every, self.hurries):
                    self._probe(fleet, name)
            case Bell.REGISTERS:
                for job in registers_to_read(fleet):
                    self._read(job, fleet)

    def remember(self, observations: Iterable[Observation]) -> None:
        """Note which of the agents' notes the ledger holds now, so that they are confirmed."""
        for seen in observations:
            if isinstance(seen, AgentSeen) and seen.report.notes:
                highest = max(note.number for note in seen.report.notes)
                agent = seen.report.agent
                self.recorded[agent] = max(highest, self.recorded.get(agent, 0))

    def _list(self, site: Site) -> None:
        def work() -> None:
            self.post((list_machines(site, self.clock.now()),))

        self.pools.submit(site.cluster, f"inventory {site.cluster}", work)

    def _ask(self, cluster: ClusterName, asked: Asked, token: int) -> None:
        def work() -> None:
            self.post(ask_agent(self.sites[cluster], self.keys, asked, token, self.clock.now()))

        self.pools.submit(cluster, f"agent {asked.node} {asked.run}", work)

    def _probe(self, fleet: Fleet, node: NodeName) -> None:
        site = self.sites[fleet.nodes[node].cluster]
        belief = fleet.beliefs.nodes.get(node)
        boot_id = belief.boot_id if belief else ""

        def work() -> None:
            self.post((probe_node(site, node, boot_id, self.clock.now()),))

        self.pools.submit(site.cluster, f"probe {node}", work)

    def _read(self, job: JobName, fleet: Fleet) -> None:
        def work() -> None:
            now = self.clock.now()
            try:  # opened here: one job's unusable URL must not end everybody's look
                seen = read_register(self.register(job, fleet), job, now)
            except HoldfastError as error:
                seen = RegisterSilent(job, now, str(error))
            self.post((seen,))

        self.pools.submit("registers", f"register {job}", work)


def agents_to_ask(fleet: Fleet, recorded: Mapping[str, int]) -> Iterator[Asked]:
    """Yield every agent that was heard of and may be alive, of attempts not closed.

    One that was never heard of is not asked: it is started again, which finds it, or swept.
    """
    for attempt in fleet.attempts:
        if attempt.state is AttemptState.CLOSED:
            continue
        every = None if attempt.every is None else attempt.every.total_seconds()
        for node in sorted(fleet.nodes.keys() & fleet.beliefs.nodes.keys()):
            agent = fleet.beliefs.nodes[node].agent(attempt.job, attempt.number)
            if agent is None or agent.gone_at is not None:
                continue
            report = agent.report
            address = AgentAddress(report.host, report.port, report.agent) if report else None
            confirm = recorded.get(report.agent, 0) if report else 0
            heard = float(report.at) if report else None
            yield Asked(node, attempt.job, attempt.number, address, confirm, heard, every)


def hurry_of(node: Node, hurries: Mapping[str, float]) -> float:
    """Return how many times as often as usual a node is looked at: by the phase of its cohort."""
    return hurries.get(cohort_key(node.cluster, node.cohort), 1.0)


def nodes_to_probe(
    fleet: Fleet, every: timedelta, hurries: Mapping[str, float] = NO_HURRY
) -> Iterator[NodeName]:
    """Yield the nodes whose health no agent reports and whose probe is due.

    Those in burn-in are always due: they wait for it. The others once within `every`, sooner where
    more fails (`outlook.hurries`), those on probation `CLOSER` times as often. One that is being
    repaired tells so that it booted anew.
    """
    idle = {NodeState.PROBATION, NodeState.SPARE, NodeState.QUARANTINED, NodeState.REPAIRING}
    for name, node in sorted(fleet.nodes.items()):
        belief = fleet.beliefs.nodes.get(name)
        last = belief.probed_at if belief else None
        closer = float(CLOSER) if node.state is NodeState.PROBATION else 1.0
        wait = every / max(closer, hurry_of(node, hurries))
        due = last is None or fleet.now >= last + wait
        if node.state is NodeState.BURN_IN or (node.state in idle and due):
            yield name


def registers_to_read(fleet: Fleet) -> Iterator[JobName]:
    """Yield the jobs whose commit register matters now.

    Also before the first attempt, because the register may hold those of an earlier job.
    """
    for name, job in sorted(fleet.jobs.items()):
        if job.state not in OVER and job.spec.register is not None:
            yield name
