"""What a schedule must not break, and that the jobs always come back: one verdict per seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from orchestrator.core.nodes import JobName, NodeName, NodeState
from orchestrator.core.policies import Policy
from orchestrator.runtime.lineage import Fence
from orchestrator.simulation.agenda import HOUR, MINUTE, second
from orchestrator.simulation.engine import Simulation
from orchestrator.simulation.plan import CONTROL_PLANE, Plan
from tests.simulation.schedules import draw

#: A job that could run is back within this, if nothing more happens: patience with a cluster (10
#: minutes) and what the rules wait for besides (joins, agents, fences, `stop_after` of 10 minutes).
BACK_WITHIN = 35 * MINUTE
LOOK_EVERY = 60.0
USABLE = frozenset({NodeState.SPARE, NodeState.STANDBY, NodeState.IN_USE, NodeState.PROBATION})


@dataclass
class Verdict:
    """What became of one schedule."""

    seed: int
    plan: Plan
    broken: list[str] = field(default_factory=list)
    takes: int = 0
    ticks: int = 0

    def told(self) -> str:
        """Tell a broken schedule so that it can be played again."""
        lines = [f"seed {self.seed}: {self.broken[0]}", *(f"  {one}" for one in self.broken[1:4])]
        return "\n".join([*lines, *(f"    {strike}" for strike in self.plan.strikes)])


@dataclass(eq=False)
class Liveness:
    """Looks every minute whether a job that could train has been kept from it too long."""

    sim: Simulation
    broken: list[str]
    calm_since: float = 0.0
    down_since: dict[JobName, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Watch from now on; a fault, and its end, gives everybody new time."""
        for strike in self.sim.plan.strikes:
            for at in (strike.at, strike.at + strike.lasts):
                self.sim.world.agenda.at(at, self._disturbed)
        self.sim.world.agenda.after(LOOK_EVERY, self._look)

    def _disturbed(self) -> None:
        self.calm_since = self.sim.now

    def _look(self) -> None:
        for job in self.sim.world.jobs:
            runs = [run for run in self.sim.world.gangs if run[0] == job]
            trains = any(self.sim.world.gangs[run].training for run in runs)
            if trains or not self._could_run(job):
                self.down_since[job] = self.sim.now
            since = max(self.calm_since, self.down_since.setdefault(job, self.sim.now))
            if self.sim.now - since > BACK_WITHIN:
                self.broken.append(f"liveness: {job} could train and does not, {self._where(job)}")
                self.down_since[job] = self.sim.now
        self.sim.world.agenda.after(LOOK_EVERY, self._look)

    def _could_run(self, job: JobName) -> bool:
        """Say whether some cluster has enough truly good nodes that the ledger may use."""
        plan = self.sim.world.jobs[job]
        need = plan.nodes_min or plan.nodes
        others = {  # members and standbys
            node
            for run, gang in self.sim.world.gangs.items()
            if run[0] != job and gang.training
            for node in self.sim.world.agents_of(run)
        }
        return any(
            sum(self._good(node) and node not in others for node in self.sim.world.clusters[name])
            >= need
            for name in self.sim.world.clusters
        )

    def _good(self, node: NodeName) -> bool:
        machine = self.sim.world.machines[node]
        return machine.reachable and not machine.faults and self.sim.states.get(node) in USABLE

    def _where(self, job: JobName) -> str:
        fleet = self.sim.controller.fleet
        attempts = [(a.number, a.state.value) for a in fleet.attempts if a.job == job]
        stages = {
            node: self.sim.world.gangs[run].report(node).stage.value
            for run in self.sim.world.gangs
            if run[0] == job
            for node in self.sim.world.agents_of(run)
        }
        return f"at {self.sim.now:.0f} s: job {fleet.jobs[job].state.value}, {attempts}, {stages}"


def judge(plan: Plan, seed: int, policy: Policy | None = None) -> Verdict:
    """Play a schedule and say what it broke."""
    sim = Simulation(plan, policy or Policy(), seed)
    verdict = Verdict(seed, plan)
    Liveness(sim, verdict.broken).begin()
    try:
        sim.begin()
        sim.run(plan.seconds)
        sim.end()
        sim.witness.read_registers()
        _look_at_the_end(sim, verdict)
    except (AssertionError, KeyError, RuntimeError) as error:
        verdict.broken.append(f"crash: {type(error).__name__}: {error}")
    verdict.broken += sim.witness.killed
    verdict.takes = sum(getattr(gang, "takes", 0) for gang in sim.world.gangs.values())
    verdict.ticks = sim.controller.ticks
    return verdict


def _look_at_the_end(sim: Simulation, verdict: Verdict) -> None:
    fleet = sim.controller.fleet
    for intent in fleet.intents:
        if second(intent.at) < sim.now - HOUR:
            verdict.broken.append(f"lost: {intent.key} has no outcome")
    for job, register in sim.world.registers.items():
        fences = [one.attempt for one in register.records if isinstance(one, Fence)]
        if len(fences) != len(set(fences)):
            verdict.broken.append(f"twice: {job} was fenced for one attempt twice: {fences}")
        if job not in fleet.jobs:
            verdict.broken.append(f"lost: {job} was submitted and is not known")
    only_control = all(strike.kind in CONTROL_PLANE for strike in verdict.plan.strikes)
    declared = sim.witness.alone  # their job asks for that
    stops = sum(books.stops for job, books in sim.world.books.items() if job not in declared)
    if only_control and (stops or sim.evictions):
        verdict.broken.append(f"killed: control-plane faults alone stopped training {stops} times")


def judge_seed(seed: int) -> Verdict:
    """Draw a schedule and judge it; of odd seeds only its control-plane faults are played alone."""
    plan = draw(seed)
    if seed % 8 == 7:
        strikes = tuple(one for one in plan.strikes if one.kind in CONTROL_PLANE)
        plan = replace(plan, strikes=strikes)
    return judge(plan, seed)


def shrink(verdict: Verdict, tries_max: int = 60) -> Verdict:
    """Leave out faults one by one while the schedule still breaks the same kind of promise."""
    kind = verdict.broken[0].partition(":")[0]
    best, tries = verdict, 0
    changed = True
    while changed and tries < tries_max:
        changed = False
        for strike in best.plan.strikes:
            tries += 1
            fewer = tuple(one for one in best.plan.strikes if one is not strike)
            again = judge(replace(best.plan, strikes=fewer), verdict.seed)
            if any(one.partition(":")[0] == kind for one in again.broken):
                best, changed = again, True
                break
    return best
