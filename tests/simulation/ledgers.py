"""What a simulated fleet's ledger says of its jobs, beside what truly became of their time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random

from orchestrator.core.accounts import Account
from orchestrator.core.nodes import JobName
from orchestrator.core.observations import AgentSeen, Observation
from orchestrator.core.policies import Policy
from orchestrator.core.timeline import Book, Cause, Timeline
from orchestrator.daemon.loop import Saw
from orchestrator.ledger.api import Event
from orchestrator.ledger.bookkeeping import events, facts, state
from orchestrator.runtime.reports import RankReport, RankState
from orchestrator.simulation.agenda import BEGIN, HOUR, moment
from orchestrator.simulation.bill import Bill, bill
from orchestrator.simulation.engine import Simulation
from orchestrator.simulation.plan import ClusterPlan, CohortPlan, JobPlan, Kind, Plan, RepairPlan

MIX = {
    Kind.GPU: 0.4,
    Kind.CRASH: 0.25,
    Kind.HANG: 0.15,
    Kind.LINK: 0.1,
    Kind.DEGRADED: 0.1,
}


def fleet(days: float, gangs: str = "brief", nodes: int = 8) -> Plan:
    """Return a fleet whose jobs fail every few hours; one of them comes to its end."""
    cohorts = tuple(CohortPlan("one", nodes + 5, rate=2.0) for _ in range(2))
    return Plan(
        tuple(
            ClusterPlan(f"c{n}", f"provider{n}", (cohort,), price_per_hour=16.0 * n)
            for n, cohort in enumerate(cohorts, 1)
        ),
        (
            JobPlan("long", nodes, clusters=("c1", "c2"), step=10.0, stall=2.0, interval=900.0),
            JobPlan("short", nodes - 2, step=5.0, submitted_at=HOUR, work=days * 40_000.0),
        ),
        days=days,
        mix=MIX,
        repair=RepairPlan(easy=1_200.0, hard=8 * HOUR, spread=2.0),
        gangs=gangs,
    )


@dataclass
class Told:
    """A world that has ended, and what its ledger holds of one job."""

    sim: Simulation
    job: JobName

    def events(self) -> list[Event]:
        """Return every event that speaks of the job."""
        ledger = self.sim.controller.ledger
        wanted = next(one for one in ledger.jobs() if one.name == self.job)
        return list(events(ledger, wanted))

    def account(self, told: Iterable[Event]) -> Account:
        """Return the account that these events make, with what the ledger's state says."""
        ledger = self.sim.controller.ledger
        job = next(one for one in ledger.jobs() if one.name == self.job)
        return facts(told, state(ledger, job, moment(self.sim.now))).account()

    def book(self, told: Iterable[Event]) -> Book:
        """Return the account's book of the whole time."""
        return Timeline(self.account(told), moment(self.sim.now)).all()

    @property
    def truth(self) -> Bill:
        """What truly became of the job's GPU-seconds."""
        return bill(self.sim.world, self.job)


def play(plan: Plan, seed: int, prepare: Callable[[Simulation], None] | None = None) -> Simulation:
    """Let a world happen, and let its controller hear every agent once more at the end."""
    sim = Simulation(plan, Policy(), seed)
    sim.begin()
    if prepare is not None:
        prepare(sim)
    sim.run(plan.seconds)
    sim.end()
    inbox = sim.controller.inbox
    assert inbox is not None
    inbox.put(Saw(tuple(_answers(sim))))
    sim.controller.tick()
    return sim


def _answers(sim: Simulation) -> Iterable[Observation]:
    """Yield what agents would answer now; a daemon asks them every other second."""
    eyes = sim.controller.eyes
    assert eyes is not None
    for run, gang in sim.world.gangs.items():
        for node in sim.world.agents_of(run):
            if not sim.world.machines[node].reachable:
                continue
            for seen in eyes.answer(node, run):
                if isinstance(seen, AgentSeen) and gang.training:
                    at = BEGIN.timestamp() + sim.now
                    step = int(gang.clock.work / sim.world.jobs[run[0]].step)
                    rank = RankReport(0, 0, 1, RankState.RUNNING, "step", step, at)
                    yield replace(seen, report=replace(seen.report, ranks=(rank,)))
                else:
                    yield seen


def late_and_twice(sim: Simulation, seed: int) -> None:
    """Let every observation come late, out of order, half of them twice."""
    dice = Random(f"late {seed}")
    sim.controller.delayed = lambda: dice.uniform(0.0, 12.0)
    sim.controller.doubled = lambda: dice.random() < 0.5


def off(book: Book, truth: Bill) -> dict[Cause, float]:
    """Return by how much each cause is off, as a share of the total."""
    return {cause: abs(book.gpu_us[cause] - truth.gpu_us[cause]) / truth.paid_us for cause in Cause}
