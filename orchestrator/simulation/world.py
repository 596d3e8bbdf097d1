"""Everything outside the controller: machines, their agents and gangs, providers, registers.

It knows nothing of the controller but what that did to it, and tells its `Watcher` what may look
different now. `eyes` and `hands` are the controller's way to it; `weather` is what befalls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.core.decisions import RepairStep
from orchestrator.core.jobs import JobSpec
from orchestrator.core.nodes import ClusterName, JobName, NodeName
from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime.lineage import Because, Member
from orchestrator.simulation.agenda import BEGIN, Agenda
from orchestrator.simulation.dice import Dice
from orchestrator.simulation.gang import Gang
from orchestrator.simulation.machine import RUNGS, Fault, Run, SimAgent, SimMachine
from orchestrator.simulation.plan import JobPlan, Kind, Plan
from orchestrator.simulation.register import SimRegister
from orchestrator.simulation.truth import Books, Doing, Turn

EPOCH = BEGIN.timestamp()
STALLS_EVERY = 1_200.0  #: seconds between two hangs over one bad link
PAIR_RATE = 20.0  #: 10^9 bytes a second between two nodes that are well


class Watcher(Protocol):
    """Whoever wants to know what may look different."""

    def agent_changed(self, node: NodeName, run: Run) -> None:
        """Hear that an agent would answer something else, or nothing."""
        ...

    def node_changed(self, node: NodeName) -> None:
        """Hear that checks on a node would say something else, or cannot run."""
        ...

    def listing_changed(self, cluster: ClusterName) -> None:
        """Hear that the provider would list something else, or nothing."""
        ...

    def register_changed(self, job: JobName) -> None:
        """Hear that a register would read otherwise, or not at all."""
        ...


class Witness(Protocol):
    """Whoever checks that what must never happen does not."""

    def node_struck(self, node: NodeName) -> None:
        """See something of its own befall a node, or end."""
        ...

    def ranks_stopped(self, run: Run, because: Because, since: float) -> None:
        """See the ranks of a running generation stop; what stopped them was there since then."""
        ...

    def left_alone(self, node: NodeName, run: Run) -> None:
        """See an agent end its ranks because nobody was heard for as long as its job allows."""
        ...

    def resumed(self, run: Run, work: float) -> None:
        """See a gang make its next step."""
        ...


@dataclass(eq=False)
class World:
    """The machines and everything on them."""

    plan: Plan
    dice: Dice
    agenda: Agenda
    machines: dict[NodeName, SimMachine] = field(default_factory=dict)
    clusters: dict[ClusterName, list[NodeName]] = field(default_factory=dict)
    registers: dict[JobName, SimRegister] = field(default_factory=dict)
    gangs: dict[Run, Gang] = field(default_factory=dict)
    books: dict[JobName, Books] = field(default_factory=dict)
    jobs: dict[JobName, JobPlan] = field(default_factory=dict)
    intervals: dict[JobName, float] = field(default_factory=dict)  #: that the policy asked for
    api: dict[ClusterName, list[str]] = field(default_factory=dict)  #: what ails a provider's API
    watchers: list[Watcher] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    make_gang: Callable[[World, Run, JobSpec], Gang] | None = None
    splits: list[frozenset[NodeName]] = field(default_factory=list)  #: cut off from all other nodes
    hears: Callable[[NodeName], bool] = lambda node: True  #: whether the controller hears a node
    mended: list[Callable[[SimMachine, RepairStep], None]] = field(default_factory=list)
    _ports: int = 20_000
    _reached: dict[JobName, float] = field(default_factory=dict)
    _alive: dict[Run, dict[NodeName, SimAgent]] = field(default_factory=dict)

    @classmethod
    def build(cls, plan: Plan, dice: Dice) -> World:
        """Return a world in which everything is on and nothing runs."""
        world = cls(plan, dice, Agenda())
        for cluster in plan.clusters:
            names = world.clusters.setdefault(ClusterName(cluster.name), [])
            for cohort in cluster.cohorts:
                throw = dice.of(f"frailty of {cluster.name}/{cohort.name}")
                for _ in range(cohort.nodes):
                    name = NodeName(f"{cluster.name}-{len(names) + 1:03}")
                    lemon = throw.random() < cohort.lemons
                    world.machines[name] = SimMachine(
                        name,
                        ClusterName(cluster.name),
                        cohort.name,
                        cluster.sku,
                        cluster.gpus,
                        cluster.price_per_hour,
                        frailty=cohort.lemon_factor if lemon else 1.0,
                    )
                    names.append(name)
        for job in plan.jobs:
            name_ = JobName(job.name)
            world.jobs[name_] = job
            world.registers[name_] = SimRegister(name_)
            world.books[name_] = Books(job.submitted_at, since=job.submitted_at)
        return world

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self.agenda.now

    # --- what others may ask ----------------------------------------------------------------------

    def agents_of(self, run: Run) -> dict[NodeName, SimAgent]:
        """Return the live agents of an attempt, by node."""
        return self._alive.setdefault(run, {})

    def books_of(self, run: Run) -> Books:
        """Return the books of a job."""
        return self.books[run[0]]

    def reached(self, job: JobName) -> float:
        """Return the most work its ranks had done when they stopped last."""
        return self._reached.get(job, 0.0)

    def apart(self, one: NodeName, other: NodeName) -> bool:
        """Say whether two nodes cannot speak with each other."""
        if not (self.machines[one].up and self.machines[other].up):
            return True
        return any((one in split) != (other in split) for split in self.splits)

    def pair(self, one: NodeName, other: NodeName) -> float | None:
        """Return what a test of the link between two nodes would tell now, in 10^9 bytes a second.

        Thrown when it is asked for, and never else: with `ProbePlan.pair_lies` some tests lie.
        """
        bad = self.apart(one, other) or any(
            fault.kind is Kind.CABLE
            for name in (one, other)
            for fault in self.machines[name].faults
        )
        lies = self.plan.probes.pair_lies
        if lies and self.dice.of("tests of pairs").random() < lies:
            bad = not bad
        return None if bad else PAIR_RATE

    def writes(self, node: NodeName, job: JobName) -> bool:
        """Say whether a node reaches the register of a job."""
        machine = self.machines[node]
        return machine.up and not machine.unregistered and not self.registers[job].down

    # --- what gangs tell --------------------------------------------------------------------------

    def reach(self, job: JobName, work: float) -> None:
        """Hear how far the ranks had come when they stopped."""
        self._reached[job] = work

    def turn(self, run: Run, doing: Doing, *, members: tuple[NodeName, ...]) -> None:
        """Keep the books of a job; only its newest attempt writes in them."""
        if run[1] < self.registers[run[0]].lineage.attempt:
            return
        books, held = self.books[run[0]], len(self.agents_of(run))
        books.turn(self.now, doing, members=len(members), held=max(len(members), held))
        books.log.turns.append(Turn(self.now, run[1], doing, members))

    def stopped(self, run: Run, because: Because, since: float) -> None:
        """Hear that ranks stopped for something wrong, which was there since then."""
        for witness in self.witnesses:
            witness.ranks_stopped(run, because, since)

    def left_alone(self, node: NodeName, run: Run) -> None:
        """Hear that an agent ends its ranks because it is alone."""
        for witness in self.witnesses:
            witness.left_alone(node, run)

    def resumed(self, run: Run, work: float) -> None:
        """Hear that steps are made again."""
        self._reached[run[0]] = work
        self.books[run[0]].log.resumed.append((self.now, work))
        for witness in self.witnesses:
            witness.resumed(run, work)

    def touch_agent(self, node: NodeName, run: Run) -> None:
        """Tell that an agent would answer something else."""
        for watcher in self.watchers:
            watcher.agent_changed(node, run)

    def touch_node(self, node: NodeName) -> None:
        """Tell that a node would look otherwise, and everything on it."""
        machine = self.machines[node]
        for watcher in self.watchers:
            watcher.node_changed(node)
            for run in {*machine.agents, *machine.gone}:
                watcher.agent_changed(node, run)

    def touch_listing(self, cluster: ClusterName) -> None:
        """Tell that a provider would list something else."""
        for watcher in self.watchers:
            watcher.listing_changed(cluster)

    def touch_register(self, job: JobName) -> None:
        """Tell that a register would read otherwise."""
        for watcher in self.watchers:
            watcher.register_changed(job)

    # --- agents -----------------------------------------------------------------------------------

    def start_agent(self, node: NodeName, run: Run, token: int, spec: JobSpec) -> SimAgent:
        """Start one agent, or find it running; raises like the real launcher."""
        machine = self._reach(node)
        self._obey(machine, run, token)
        alive = machine.agents.get(run)
        if alive is not None:
            return alive
        self._ports += 1
        member = Member(node, f"10.0.0.{machine.serial}", self._ports)
        nonce = f"{node}.{self._ports}"
        agent = SimAgent(nonce, member, run, self.now, token, machine.disk.get(run))
        agent.note("agent-started", f"agent of {run[0]}/{run[1]}", EPOCH + self.now)
        machine.agents[run] = agent
        machine.gone.pop(run, None)
        self._alive.setdefault(run, {})[node] = agent
        if run not in self.gangs:
            if self.make_gang is None:
                raise PermanentError("this world has no gangs")
            self.gangs[run] = self.make_gang(self, run, spec)
        self.gangs[run].began(agent)
        return agent

    def end_agent(self, node: NodeName, run: Run, proof: str) -> None:
        """End an agent and its ranks; the guard writes the proof, unless there is none ("")."""
        machine = self.machines[node]
        if run in machine.agents:
            del machine.agents[run]
            del self._alive[run][node]
            self.gangs[run].ended(node)
        if proof:
            machine.gone[run] = proof
        self.touch_agent(node, run)

    def sweep(self, node: NodeName, run: Run, token: int) -> str:
        """End whatever of an attempt is left on a node; return the proof."""
        machine = self._reach(node)
        self._obey(machine, run, token)
        self.end_agent(node, run, "swept")
        return "swept"

    def _reach(self, node: NodeName) -> SimMachine:
        machine = self.machines[node]
        if not machine.reachable:
            raise TransientError(f"{node}: no route to host")
        return machine

    def _obey(self, machine: SimMachine, run: Run, token: int) -> None:
        highest = machine.tokens.get(run, 0)
        if token < highest:
            raise PermanentError(f"{machine.node}: token {token} is below {highest}")
        machine.tokens[run] = token

    # --- machines ---------------------------------------------------------------------------------

    def befall(self, node: NodeName, fault: Fault) -> None:
        """Let a fault begin."""
        self._witness(node)
        machine = self.machines[node]
        machine.faults.append(fault)
        if fault.kind is Kind.CRASH:
            self.power_off(machine)
        elif fault.kind is Kind.LINK:
            machine.cut += 1
            self._strike(machine, fault.kind)
        elif fault.kind is Kind.CABLE:
            self._stall(machine, fault)
        else:
            self._strike(machine, fault.kind)
        if fault.seen_from > self.now:
            self.agenda.at(fault.seen_from, lambda: self.touch_node(node))
        else:
            self.touch_node(node)

    def hang(self, node: NodeName) -> None:
        """Let the ranks of a node make no progress any more; the node has nothing."""
        self._witness(node)
        self._strike(self.machines[node], Kind.HANG)

    def _stall(self, machine: SimMachine, fault: Fault) -> None:
        """Let whatever trains over a bad link hang, again and again until it is mended."""
        if fault in machine.faults:
            self._strike(machine, Kind.HANG)
            self.agenda.after(STALLS_EVERY, lambda: self._stall(machine, fault))

    def heal(self, node: NodeName, fault: Fault) -> None:
        """Let a fault end by itself."""
        machine = self.machines[node]
        if fault not in machine.faults:
            return
        self._witness(node)
        machine.faults.remove(fault)
        if fault.kind is Kind.LINK:
            machine.cut -= 1
        if fault.kind is Kind.CRASH and not machine.repairing:
            self.boot(machine)
        self._strike(machine, fault.kind)
        self.touch_node(node)

    def saw(self, node: NodeName) -> None:
        """Let everybody know that a node, or its network, had something just now."""
        self._witness(node)

    def _witness(self, node: NodeName) -> None:
        for witness in self.witnesses:
            witness.node_struck(node)

    def _strike(self, machine: SimMachine, kind: Kind) -> None:
        for run in sorted(machine.agents):
            self.gangs[run].struck(machine.node, kind)

    def power_off(self, machine: SimMachine) -> None:
        """Let a machine lose its power, with everything on it."""
        machine.on = False
        for run in sorted(machine.agents):
            self.end_agent(machine.node, run, "")
        machine.gone.clear()
        self.touch_node(machine.node)
        self.touch_listing(machine.cluster)

    def repair(self, node: NodeName, step: RepairStep) -> float:
        """Begin a step of the repair ladder; return how long it will take.

        Raises `TransientError` while the provider's API fails or another repair is under way.
        """
        machine = self.machines[node]
        if self.api.get(machine.cluster):
            raise TransientError(f"{machine.cluster}: the provider's API answers 503")
        if machine.repairing:
            raise TransientError(f"{node}: a repair is under way")
        can = [RepairStep(one) for one in self._can(machine.cluster)]
        if step not in can:
            raise PermanentError(f"{machine.cluster}: the provider cannot {step} a machine")
        mends = [fault for fault in machine.faults if self._mends(step, fault, can)]
        takes = max([self._takes(fault) for fault in mends], default=self.plan.times.boot)
        if step is RepairStep.REPLACE:
            takes = max([takes, *(self._takes(fault) for fault in machine.faults)])
            mends = list(machine.faults)
        machine.repairing = True
        self.power_off(machine)
        self.agenda.after(takes, lambda: self._repaired(machine, step, mends))
        return takes

    def _takes(self, fault: Fault) -> float:
        if fault.until is None:
            return fault.takes
        return max(self.plan.times.boot, fault.until - self.now)

    def _mends(self, step: RepairStep, fault: Fault, can: list[RepairStep]) -> bool:
        if fault.kind in (Kind.LINK, Kind.PROBE):
            return False
        enough = RUNGS.index(step) >= RUNGS.index(fault.fixed_by)
        return enough or step is max(can, key=RUNGS.index)

    def _repaired(self, machine: SimMachine, step: RepairStep, mends: list[Fault]) -> None:
        self._witness(machine.node)
        machine.repairing = False
        machine.faults = [fault for fault in machine.faults if fault not in mends]
        if step is RepairStep.REPLACE:
            machine.serial += 1
            machine.disk.clear()
            machine.tokens.clear()
            machine.alarmed.clear()
        for act in self.mended:
            act(machine, step)
        self.boot(machine)

    def boot(self, machine: SimMachine) -> None:
        """Let a machine come up, with nothing running on it."""
        if any(fault.kind is Kind.CRASH for fault in machine.faults):
            return
        machine.on = True
        machine.boot += 1
        self.touch_node(machine.node)
        self.touch_listing(machine.cluster)

    def _can(self, cluster: ClusterName) -> tuple[str, ...]:
        return next(one.can for one in self.plan.clusters if one.name == cluster)
