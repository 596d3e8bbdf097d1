"""One simulated world with its controller, from the first second to the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.core.decisions import Enlist, LedgerOnly, MoveNode, OpenAttempt, SetCadence
from orchestrator.core.jobs import JobSpec, WhenAlone
from orchestrator.core.nodes import SEATED, ClusterName, JobName, NodeName, NodeState
from orchestrator.core.observations import OrderKind
from orchestrator.core.policies import Policy
from orchestrator.core.submission import plain
from orchestrator.runtime.lineage import Because
from orchestrator.simulation.agenda import DAY, moment, second
from orchestrator.simulation.brief import BriefGang
from orchestrator.simulation.controller import Controller
from orchestrator.simulation.dice import Dice
from orchestrator.simulation.full import FullGang
from orchestrator.simulation.gang import Gang
from orchestrator.simulation.machine import Run
from orchestrator.simulation.plan import JobPlan, Plan
from orchestrator.simulation.samples import Samples
from orchestrator.simulation.strikes import Strikes
from orchestrator.simulation.training import Training
from orchestrator.simulation.truth import Doing, Seated
from orchestrator.simulation.weather import Weather, in_use
from orchestrator.simulation.witness import Witness
from orchestrator.simulation.world import World

UNSETTLED = frozenset({NodeState.BURN_IN, NodeState.DRAINING})
PRUNE_EVERY = 6 * 3_600.0
HISTORY = timedelta(hours=1)
TOLD_BEFORE = 5.0  #: seconds before an outage that belong to its story
STORY_MAX = 400


@dataclass(eq=False)
class Evicted:
    """One node that was taken out of a running gang."""

    at: float
    node: NodeName
    reason: str
    rightly: bool  #: something was wrong with it


@dataclass(eq=False)
class Outage:
    """One time in which a job made no steps, and what was told meanwhile."""

    job: JobName
    start: float
    because: str
    end: float = 0.0
    told: list[tuple[float, str]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.start


@dataclass(eq=False)
class Outages:
    """Remembers the costliest outage of a world with what the ledger told of it."""

    controller: Controller
    world: World
    open: dict[JobName, Outage] = field(default_factory=dict)
    worst: Outage | None = None
    count: int = 0

    def node_struck(self, node: NodeName) -> None:
        """Nothing: nodes are no outages."""

    def ranks_stopped(self, run: Run, because: Because, since: float) -> None:
        """See training stop."""
        words = f"{because.cause.value} on {because.node}: {because.fingerprint}"
        books = self.world.books[run[0]]
        start = self.world.now if books.doing is Doing.TRAINING else books.since
        self.open.setdefault(run[0], Outage(run[0], start, words))

    def left_alone(self, node: NodeName, run: Run) -> None:
        """Nothing: `ranks_stopped` tells it."""

    def resumed(self, run: Run, work: float) -> None:
        """See training go on."""
        outage = self.open.pop(run[0], None)
        if outage is None:
            return
        outage.end = self.world.now
        self.count += 1
        if self.worst is None or outage.seconds > self.worst.seconds:
            since = moment(outage.start - TOLD_BEFORE)
            story = self.controller.ledger.story(None, since=since, limit=STORY_MAX)
            outage.told = [(second(one.recorded_at or one.at), one.text) for one in story]
            self.worst = outage


@dataclass(eq=False)
class Simulation:
    """A world, its weather, its controller."""

    plan: Plan
    policy: Policy
    seed: int
    strict: bool = False  #: a broken promise ends it at once
    evictions: list[Evicted] = field(default_factory=list)
    states: dict[NodeName, NodeState] = field(default_factory=dict)
    tuned: dict[JobName, list[tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Build the world; nothing has happened in it yet."""
        self.world = World.build(self.plan, Dice(self.seed))
        self.world.make_gang = _maker(self.plan)
        self.weather = Weather(self.world)
        self.witness = Witness(self.world, self.policy, strict=self.strict)
        self.world.witnesses.append(self.witness)
        self.world.hears = self._hears
        self.controller = Controller(self.world, self.policy)
        self.controller.ledger.applied.append(self._applied)
        self.outages = Outages(self.controller, self.world)
        self.world.witnesses.append(self.outages)
        self.samples = Samples(self.world, self.controller)
        self._unsettled: dict[ClusterName, set[NodeName]] = {}
        self._owners: dict[NodeName, JobName | None] = {}

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self.world.now

    def begin(self) -> None:
        """Start the controller, submit the jobs as they come, let the weather begin."""
        agenda = self.world.agenda
        for job in self.plan.jobs:
            agenda.at(job.submitted_at, lambda job=job: self._submit(job))  # type: ignore[misc]
        self.controller.start()
        self.weather.begin()
        Strikes(self.world, self.weather, self.controller).begin()
        agenda.after(PRUNE_EVERY, self._prune)
        self.samples.begin()

    def run(self, until: float, progress: Callable[[float], None] | None = None) -> None:
        """Let everything happen until a second; `progress` is told each simulated day."""
        while self.now < until:
            self.world.agenda.run(min(until, self.now + DAY))
            if progress is not None:
                progress(self.now)

    def end(self) -> None:
        """Close the books."""
        for name, books in self.world.books.items():
            runs = [run for run in self.world.gangs if run[0] == name]
            if runs:
                gang = self.world.gangs[max(runs)]
                gang.close()
            books.turn(self.now, Doing.NOTHING, members=0, held=0)

    def _submit(self, job: JobPlan) -> None:
        body = plain(spec_of(job))
        now = moment(self.now)
        self.controller.ledger.order(OrderKind.SUBMIT, job.name, "simulation", "", body, now)
        self.controller.call()

    def _prune(self) -> None:
        if self.controller.alive:
            self.controller.prune(HISTORY)
        self.world.agenda.after(PRUNE_EVERY, self._prune)

    def _applied(self, decision: LedgerOnly, at: datetime) -> None:
        """Hear of each decision that the ledger holds: what it means for what is looked at."""
        match decision:
            case Enlist(cluster=cluster, seen=seen):
                self._settle(seen.node, cluster, NodeState.BURN_IN)
            case MoveNode(node=node, end=end, counts=counts, reason=reason):
                if counts == "eviction":
                    rightly = bool(self.world.machines[node].faults)
                    self.evictions.append(Evicted(self.now, node, reason, rightly))
                self._settle(node, self.world.machines[node].cluster, end)
                self._seat(decision, at)
            case OpenAttempt(job=job):
                self.world.books[job].log.opened.append(at)
            case SetCadence(job=job, attempt=attempt, every=every):
                self._retune((job, attempt), every.total_seconds())
            case _:
                pass
        self.witness.applied(decision, at)

    def _seat(self, move: MoveNode, at: datetime) -> None:
        """Keep in mind who holds a node from now on: that is what a job pays for."""
        job, seated = self._owners.get(move.node), move.end in SEATED
        if move.job is not None and seated:
            job = move.job
        if job is not None:
            state = move.end if seated else None
            self.world.books[job].log.seats.append(Seated(at, move.node, state))
        self._owners[move.node] = job if seated else None

    def _retune(self, run: Run, every: float) -> None:
        self.tuned.setdefault(run[0], []).append((self.now, every))
        self.world.intervals[run[0]] = every
        if run in self.world.gangs:
            self.world.gangs[run].retune(every)

    def _settle(self, node: NodeName, cluster: ClusterName, state: NodeState) -> None:
        self.states[node] = state
        unsettled = self._unsettled.setdefault(cluster, set())
        if state in UNSETTLED:
            unsettled.add(node)
        else:
            unsettled.discard(node)
        if self.controller.eyes is not None:
            self.controller.eyes.node_changed(node)
        self.controller.busy({name for name, nodes in self._unsettled.items() if nodes})

    def _hears(self, node: NodeName) -> bool:
        return self.controller.alive and self.world.machines[node].reachable

    def mean_interval(self, job: str) -> float:
        """Return the mean interval between durable checkpoints of a job, in seconds."""
        tuned = self.tuned.get(JobName(job), [])
        before, since, total = self.world.jobs[JobName(job)].interval, 0.0, 0.0
        for at, every in tuned:
            total += (at - since) * before
            before, since = every, at
        return (total + (self.now - since) * before) / self.now if self.now else before

    def in_use(self, node: NodeName) -> bool:
        """Say whether a node holds ranks."""
        return in_use(self.world, self.world.machines[node])


def spec_of(job: JobPlan) -> JobSpec:
    """Return a job as the core knows it."""
    alone = {}
    if job.stop_after is not None:
        alone = {
            "when_alone": WhenAlone.STOP_AFTER,
            "stop_after": timedelta(seconds=job.stop_after),
        }
    return JobSpec(
        nodes_min=job.nodes_min or job.nodes,
        nodes_max=job.nodes,
        clusters=tuple(ClusterName(name) for name in job.clusters),
        register=f"sim:/{job.name}",
        checkpoints=f"sim:/{job.name}",
        **alone,  # type: ignore[arg-type]
    )


def _maker(plan: Plan) -> Callable[[World, Run, JobSpec], Gang]:
    def make(world: World, run: Run, spec: JobSpec) -> Gang:
        job_name = JobName(run[0])
        job = world.jobs[job_name]
        interval = world.intervals.get(job_name, job.interval)
        clock = Training(interval, job.stall, job.lag)
        if plan.gangs == "full":
            return FullGang(world, run, job, spec, clock)
        return BriefGang(world, run, job, spec, clock)

    return make
