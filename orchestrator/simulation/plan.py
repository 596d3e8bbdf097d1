"""What a simulated world is made of: clusters, jobs, faults, repairs, times. Plain frozen data.

Made from a file (`config.simulation`), a preset or a trace; read by `world` and those around it.
Durations are seconds, rates are per node-week in use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What may befall a node, or everything."""

    CRASH = "crash"  #: the machine loses its power; its provider sees it
    GPU = "gpu"  #: a GPU falls off the bus: explicit in the driver's log
    HANG = "hang"  #: a rank stops making progress; nothing is explicit, a restart helps
    LINK = "link"  #: the node's network is gone for a while
    DEGRADED = "degraded"  #: the node is slow: its gang goes at its pace
    CABLE = "cable"  #: its link is bad, and nothing on it says so: gangs with it hang
    PROBE = "probe"  #: a check calls a healthy node broken, wrongly
    SHARED = "shared"  #: a switch, a store or the power of many nodes at once
    CHECKPOINT = "checkpoint"  #: the newest checkpoint is damaged where it lies
    BLACKOUT = "blackout"  #: everything of one provider is gone
    # of the control plane: no node has anything, and no job may lose anything
    API = "api"  #: the provider's API answers nonsense: 5xx, 429, empty, stale, in part
    PARTITION = "partition"  #: the controller cannot reach nodes that train happily
    REGISTER = "register"  #: a run's register cannot be read or written
    REPORTS = "reports"  #: reports come late, doubled and out of order
    CLOCK = "clock"  #: the controller's clock jumps
    CONTROLLER = "controller"  #: the controller is killed, perhaps in the middle of a write


#: Kinds in which nothing that trains has anything: no job may lose anything by them alone.
CONTROL_PLANE = frozenset(
    {Kind.API, Kind.PARTITION, Kind.REGISTER, Kind.REPORTS, Kind.CLOCK, Kind.CONTROLLER}
)


@dataclass(frozen=True, slots=True)
class CohortPlan:
    """One hand-over batch of nodes of one cluster."""

    name: str
    nodes: int
    rate: float  #: failures per node-week in use, in the stable phase
    early_rate: float = 0.0  #: in the weeks after hand-over
    early_weeks: float = 0.0
    lemons: float = 0.0  #: share of the nodes that fail `lemon_factor` times as often
    lemon_factor: float = 10.0
    idle_share: float = 0.0  #: of the rate, for nodes that hold no ranks

    def at(self, second: float) -> float:
        """Return the rate of an ordinary node at a moment, per second in use."""
        week = 604_800.0
        early = second < self.early_weeks * week
        return (self.early_rate if early else self.rate) / week

    @property
    def highest(self) -> float:
        """Return the highest rate of an ordinary node, per second in use."""
        early = self.early_rate if self.early_weeks > 0 else 0.0
        return max(self.rate, early) / 604_800.0


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """One cluster of one provider."""

    name: str
    provider: str
    cohorts: tuple[CohortPlan, ...]
    sku: str = "h100"
    gpus: int = 8  #: per node
    price_per_hour: float = 16.0  #: US dollars for a whole node
    can: tuple[str, ...] = ("reset", "reboot", "reprovision", "replace")

    @property
    def nodes(self) -> int:
        """Return how many nodes it has."""
        return sum(cohort.nodes for cohort in self.cohorts)


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One training run."""

    name: str
    nodes: int
    nodes_min: int = 0  #: 0: all of `nodes`
    clusters: tuple[str, ...] = ()  #: in order of preference; none: any
    submitted_at: float = 0.0
    step: float = 1.0  #: seconds of one undisturbed step
    interval: float = 600.0  #: seconds between durable checkpoints, until the policy says another
    stall: float = 0.05  #: seconds that training stands for one
    lag: float = 5.0  #: seconds until one is durable
    stop_after: float | None = None  #: `when_alone: stop_after`; None: continue
    work: float | None = None  #: seconds of training until it is done; None: for ever


@dataclass(frozen=True, slots=True)
class Times:
    """How long things take."""

    detect: float = 10.0  #: from a fault to the moment the gang notices
    recover: float = 30.0  #: from there to the next step, a standby taking the lost seat
    cold: float = 60.0  #: longer, if a node of the new gang had no warm agent
    start_agent: float = 2.0
    test_pairs: float = 8.0  #: a round of tests between nodes
    examine: float = 120.0  #: active checks of an idle node
    act: float = 0.2  #: any other act of the controller
    boot: float = 180.0  #: of a machine that was told to reboot and is well


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What mends a fault, and how long it takes. Times are lognormal and heavy-tailed."""

    easy_share: float = 0.8  #: mended by a reset or a reboot
    easy: float = 1_200.0  #: median
    hard: float = 129_600.0  #: median of a replacement
    spread: float = 4.0  #: 95th percentile over median


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """How good the checks are."""

    miss: float = 0.0  #: chance that one look does not see a fault that is there
    false_alarms: float = 0.0  #: per node and year: an explicit fault that is none
    alarm_lasts: float = 1_800.0
    pair_lies: float = 0.0  #: chance that a test between two nodes lies


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of a script: drawn beforehand, so that a failing script can be shrunk."""

    at: float
    kind: Kind
    target: str  #: a node, a cluster, a job, or "controller"
    lasts: float = 0.0
    how: str = ""  #: the variety: "5xx", "empty", "before-write", ...
    nodes: tuple[str, ...] = ()  #: of a partition or a shared cause
    end_at: float | None = None  #: of a trace: when the node was back
    number: int = 0  #: of the write at which a controller dies


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole world."""

    clusters: tuple[ClusterPlan, ...]
    jobs: tuple[JobPlan, ...]
    days: float = 7.0
    mix: dict[Kind, float] = field(
        default_factory=lambda: {Kind.GPU: 0.6, Kind.CRASH: 0.3, Kind.LINK: 0.1}
    )  #: weights of what befalls a node that fails by chance
    times: Times = field(default_factory=Times)
    repair: RepairPlan = field(default_factory=RepairPlan)
    probes: ProbePlan = field(default_factory=ProbePlan)
    strikes: tuple[Strike, ...] = ()  #: on top of chance, or instead of it
    gangs: str = "brief"  #: or "full": the very machine of membership, message by message

    @property
    def seconds(self) -> float:
        """Return how long it lasts."""
        return self.days * 86_400.0
