"""What befalls the world by chance: nodes that fail at their rates, checks that cry wolf.

Sampled by thinning: each cohort proposes failures at its highest possible rate, and a proposal is
taken with the chance that the node's present rate has. A year without failures costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from orchestrator.core.decisions import RepairStep
from orchestrator.core.nodes import ClusterName, NodeName
from orchestrator.simulation.dice import lognormal
from orchestrator.simulation.machine import Fault, SimMachine
from orchestrator.simulation.plan import ClusterPlan, CohortPlan, Kind
from orchestrator.simulation.world import World

YEAR = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Failed:
    """One failure that happened, for reports."""

    at: float
    node: NodeName
    cohort: str  #: "cluster/cohort"
    kind: Kind
    in_use: bool


@dataclass(eq=False)
class Weather:
    """Chance failures of every cohort."""

    world: World
    failed: list[Failed] = field(default_factory=list)
    tell: Callable[[Failed], None] = lambda one: None

    def begin(self) -> None:
        """Let every cohort begin to fail."""
        for cluster in self.world.plan.clusters:
            first = 0
            names = self.world.clusters[ClusterName(cluster.name)]
            for cohort in cluster.cohorts:
                _Cohort(self, cluster, cohort, names[first : first + cohort.nodes]).begin()
                first += cohort.nodes
        if self.world.plan.probes.false_alarms > 0:
            for node in self.world.machines:
                self._cry_wolf(node)

    def strike(self, node: NodeName, kind: Kind, dice: Random, *, lasts: float = 0.0) -> None:
        """Let something befall one node now; one that has something already is spared."""
        world, machine = self.world, self.world.machines[node]
        if machine.faults or machine.repairing or not machine.on:
            return
        fault = make_fault(world, kind, dice)
        self.note(machine, kind)
        if kind is Kind.HANG:
            world.hang(node)
            return
        if kind is Kind.LINK and not lasts:
            lasts = lognormal(dice, 300.0, world.plan.repair.spread)
        world.befall(node, fault)
        if lasts:
            world.agenda.after(lasts, lambda: world.heal(node, fault))

    def note(self, machine: SimMachine, kind: Kind) -> None:
        """Remember a failure for the report."""
        cohort = f"{machine.cluster}/{machine.cohort}"
        one = Failed(self.world.now, machine.node, cohort, kind, in_use(self.world, machine))
        self.failed.append(one)
        self.tell(one)

    def _cry_wolf(self, node: NodeName) -> None:
        dice, probes = self.world.dice.of(f"false alarms of {node}"), self.world.plan.probes

        def alarm() -> None:
            machine = self.world.machines[node]
            if machine.on and not machine.faults and not machine.repairing:
                fault = Fault(Kind.PROBE, self.world.now)
                self.world.befall(node, fault)
                self.world.agenda.after(probes.alarm_lasts, lambda: self.world.heal(node, fault))
            later()

        def later() -> None:
            self.world.agenda.after(dice.expovariate(probes.false_alarms / YEAR), alarm)

        later()


def make_fault(world: World, kind: Kind, dice: Random) -> Fault:
    """Throw what mends a fault, how long that takes, and when checks will see it."""
    plan, now = world.plan, world.now
    easy = dice.random() < plan.repair.easy_share
    if easy:
        fixed_by = RepairStep.RESET if dice.random() < 0.5 else RepairStep.REBOOT
        takes = lognormal(dice, plan.repair.easy, plan.repair.spread)
    else:
        fixed_by, takes = RepairStep.REPLACE, lognormal(dice, plan.repair.hard, plan.repair.spread)
    seen_from = now + (plan.times.detect if kind in (Kind.GPU, Kind.DEGRADED) else 0.0)
    while dice.random() < plan.probes.miss:
        seen_from += 60.0
    return Fault(kind, now, fixed_by, takes, seen_from)


def in_use(world: World, machine: SimMachine) -> bool:
    """Say whether a machine holds ranks of a gang."""
    return any(machine.node in world.gangs[run].members for run in machine.agents)


@dataclass(eq=False)
class _Cohort:
    weather: Weather
    cluster: ClusterPlan
    plan: CohortPlan
    nodes: list[NodeName]

    def begin(self) -> None:
        world = self.weather.world
        self.dice = world.dice.of(f"failures of {self.cluster.name}/{self.plan.name}")
        self.frailty = [world.machines[node].frailty for node in self.nodes]
        self.most = self.plan.highest * sum(self.frailty)
        if self.most > 0:
            self._later()

    def _later(self) -> None:
        self.weather.world.agenda.after(self.dice.expovariate(self.most), self._propose)

    def _propose(self) -> None:
        world = self.weather.world
        node = self.dice.choices(self.nodes, self.frailty)[0]
        chance = self.plan.at(world.now) / self.plan.highest
        if not in_use(world, world.machines[node]):
            chance *= self.plan.idle_share
        if self.dice.random() < chance:
            mix = world.plan.mix
            kind = self.dice.choices(list(mix), list(mix.values()))[0]
            self.weather.strike(node, kind, self.dice)
        self._later()
