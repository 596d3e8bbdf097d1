"""How patient, how strict, how greedy the operator wishes Holdfast to be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

#: Detectors (`Finding.detector`) whose CRITICAL finding alone evicts: faults that the driver
#: names itself. XID sources: NVIDIA XID catalogue; gpud and Azure NHC fatal lists agree on them.
EXPLICIT = frozenset(
    {
        "xid:48",  # double-bit ECC
        "xid:62",  # PMU halt
        "xid:64",  # row-remap failure
        "xid:74",  # NVLink error
        "xid:79",  # GPU has fallen off the bus
        "xid:95",  # uncontained ECC
        "xid:119",  # GSP RPC time-out
        "xid:120",  # GSP error
        "xid:140",  # unrecovered ECC
        "localise:named",  # by peers' tests or the gang's reports, posterior .99 or more
        "nvml:gpu-lost",
        "nvml:gpu-count",
        "host-key:changed",  # replaced, or somebody in between: never auto-accepted
    }
)

#: Checks and detectors that tell that something waits, not why: they never speak against a node.
#: More than 60 % of NCCL watchdog time-outs come from the CPU side (PyTorch flight recorder, 2025).
SYMPTOMS = frozenset({"hang", "nccl", "nccl-timeout", "stall", "watchdog"})


@dataclass(frozen=True, slots=True)
class Policy:
    """Every limit of the deciding part. Durations and counts, never percentages alone."""

    explicit: frozenset[str] = EXPLICIT
    observe: frozenset[str] = frozenset()  #: the operator's override: these only report
    symptoms: frozenset[str] = SYMPTOMS
    evidence_age: timedelta = timedelta(minutes=30)  #: older evidence evicts nobody
    burn_in: timedelta = timedelta(minutes=30)  #: healthy time before a node is trusted
    probe_every: timedelta = timedelta(seconds=60)
    active_checks: bool = True  #: on idle nodes
    active_every: timedelta = timedelta(days=1)  #: on one node; more often where more fails
    active_after: timedelta = timedelta(minutes=10)  #: idle for so long first
    active_share: float = 0.25  #: of a cluster's nodes at once; max(1, ...)
    look_every: timedelta = timedelta(seconds=2)  #: agents and registers
    inventory_every: timedelta = timedelta(seconds=30)
    silence_max: timedelta = timedelta(seconds=30)  #: unreachable that long is an incident
    patience: timedelta = timedelta(minutes=10)  #: wait for nodes before moving to a cluster
    alone_margin: timedelta = timedelta(seconds=30)  #: on top of a job's `stop_after`
    seat_wait: timedelta = timedelta(seconds=20)  #: wait for a new agent before a smaller grant
    standbys: int = 1  #: granted to each attempt if nodes are there
    evictions_per_hour: int = 4  #: per cluster: max(1, ...) always holds
    cohort_evictions_per_hour: int = 4  #: per cohort; max(1, ...)
    fleet_evictions_per_hour: int = 12  #: in the whole fleet; max(1, ...)
    quarantine_share: float = 0.34  #: of a cluster; max(1, ...) nodes always allowed
    cohort_share: float = 0.5  #: of a cohort held back; max(1, ...)
    fleet_share: float = 0.2  #: of the fleet held back on judgement; max(1, ...)
    relapse_mean: timedelta = timedelta(hours=8)  #: mean service until a bad node shows itself
    doubt_max: float = 0.02  #: probability that a node is bad, below which probation ends; 1: none
    lemon_after: int = 3  #: times out of service within 28 days
    resets_per_day: int = 3  #: per node
    reboots_per_day: int = 3  #: per node
    reprovisions_per_day: int = 1  #: per node
    replaces_per_day: int = 1  #: per node
    fleet_repairs_per_hour: int = 20  #: steps of the ladder; the larger of this and the share
    fleet_repairs_share: float = 0.1  #: of the fleet's nodes, within an hour
    relapse_window: timedelta = timedelta(days=7)  #: the same fault again: the next rung
    rung_tries: int = 2  #: of a lower rung for one fault, where the right one cannot be taken
    repair: bool = True  #: let the provider repair quarantined and lost nodes
    over_evict_after: int = 3  #: accusations of a group until all of it leaves; 0: never
    over_evict_window: timedelta = timedelta(hours=2)  #: within which they must lie
    revalidation: timedelta = timedelta(minutes=10)  #: healthy time that acquits a suspect
    localisations_per_hour: int = 4  #: per job; 0: links are never tested
    suspects_share: float = 0.2  #: more suspects than max(2, share of the gang): shared cause
    pages_per_hour: int = 20
    agent_starts_max: int = 5  #: per node and attempt within `agent_starts_window`
    agent_starts_window: timedelta = timedelta(minutes=10)
    sweep_after: timedelta = timedelta(seconds=5)  #: agent silent, node reachable: sweep it
    repair_wait: timedelta = timedelta(minutes=30)  #: to come back from a reset or reboot
    reprovision_wait: timedelta = timedelta(hours=1)  #: to come back installed anew
    replace_wait: timedelta = timedelta(days=3)  #: for the provider to bring another machine
    restarts_window: timedelta = timedelta(minutes=10)  #: a gang's own repair is told that long
    suspicion_min: timedelta = timedelta(seconds=10)  #: a stall suspected that long is told
    intent_limit: timedelta = timedelta(seconds=60)  #: an intent without outcome is then looked at
    checkpoint_min: timedelta = timedelta(minutes=1)  #: bounds of the interval asked for
    checkpoint_max: timedelta = timedelta(hours=12)
    checkpoint_change: float = 0.2  #: a new interval is asked for if it differs by that share
    checkpoint_stall: timedelta = timedelta(seconds=1)  #: of a checkpoint, until it is measured
    checkpoint_lag: timedelta = timedelta(seconds=30)  #: until it is durable, until measured
    restart_expected: timedelta = timedelta(seconds=40)  #: a gang's detection and recovery
    repair_expected: timedelta = timedelta(hours=11)  #: mean time a failed node is away
    absence_expected: timedelta = timedelta(hours=1)  #: standbys last that long without us
    standbys_max: int = 4
    return_after: timedelta = timedelta(days=14)  #: bad for that long: think of returning it
    return_share: float = 0.08  #: of a cohort in repair, by the lower bound of its rate
