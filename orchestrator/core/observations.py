"""What was seen: raw timed facts, made by observers, appended to the ledger, folded by `assess`.

`at` is the moment on the controller's clock at which the fact was true as far as we can tell (for
an agent's report: when the request was sent). Silence is an observation of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator.core.nodes import ClusterName, JobName, Machine, NodeName
from orchestrator.core.verdicts import Channel, Finding
from orchestrator.runtime.lineage import Commit, Fence, Generation
from orchestrator.runtime.reports import AgentReport


class Power(StrEnum):
    """What a provider says of a machine."""

    RUNNING = "running"
    STOPPED = "stopped"  #: the provider vouches that nothing runs on it
    ABSENT = "absent"  #: no longer ours


@dataclass(frozen=True, slots=True)
class MachineSeen:
    """One machine in a provider's answer."""

    node: NodeName
    cohort: str
    machine: Machine
    power: Power
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class InventorySeen:
    """A provider listed the machines of a cluster."""

    cluster: ClusterName
    provider: str
    at: datetime
    machines: tuple[MachineSeen, ...]


@dataclass(frozen=True, slots=True)
class ProviderFailed:
    """A provider's API did not answer usefully."""

    cluster: ClusterName
    at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """An agent answered a status request."""

    node: NodeName
    at: datetime
    report: AgentReport


@dataclass(frozen=True, slots=True)
class AgentSilent:
    """An agent that should be there did not answer. This is never death by itself."""

    node: NodeName
    job: JobName
    attempt: int
    at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class AgentGone:
    """Proof that nothing of an attempt runs on a node: the guard's word, a sweep, or power off."""

    node: NodeName
    job: JobName
    attempt: int
    at: datetime
    proof: str


@dataclass(frozen=True, slots=True)
class NodeReached:
    """The transport ran a command on the node."""

    node: NodeName
    at: datetime
    boot_id: str


@dataclass(frozen=True, slots=True)
class NodeUnreached:
    """The transport could not run a command on the node. Never death by itself."""

    node: NodeName
    at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class Probed:
    """A health check run ended: its findings, and whether it covered what it should."""

    node: NodeName
    at: datetime
    boot_id: str
    findings: tuple[Finding, ...]
    complete: bool  #: expected = passed + failed + skipped(reason)
    clock_at: datetime | None = None  #: what the node's own clock said at `at`; None: not told


@dataclass(frozen=True, slots=True)
class Examined:
    """Active checks of an idle node ended."""

    node: NodeName
    at: datetime
    boot_id: str
    findings: tuple[Finding, ...]
    stopped: bool = False  #: work came, and ended them


@dataclass(frozen=True, slots=True)
class RegisterSeen:
    """A run's commit register was read; only what counts, newest first where cut."""

    job: JobName
    at: datetime
    fence: Fence | None
    generations: tuple[Generation, ...]  #: of the last fence, oldest first
    commit: Commit | None  #: the head
    commits: int
    void: int


@dataclass(frozen=True, slots=True)
class RegisterSilent:
    """A run's commit register could not be read."""

    job: JobName
    at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class Accused:
    """Localisation named the nodes among which the cause of a gang's failure or hang is.

    One node with a posterior of .99 or more is as good as an explicit fault; a group is evidence
    against none of its nodes, and may be taken out as a whole if it is named again and again.
    """

    job: JobName
    attempt: int
    nodes: tuple[NodeName, ...]
    posterior: float  #: probability that the cause is one of them
    channel: Channel  #: whose reports or tests it rests on
    evidence: str  #: in words
    at: datetime


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What one localisation is about: which incident, and who is tested. Fixed when it begins."""

    job: JobName
    attempt: int
    occasion: int  #: seq of the generation that ended for no clear reason
    cluster: ClusterName
    nodes: tuple[NodeName, ...]
    gpu: int | None = None  #: whose rail is tested; None: from host to host, beside running ranks
    leaves: tuple[tuple[str, tuple[NodeName, ...]], ...] = ()  #: leaf switches, where known

    @property
    def name(self) -> str:
        """Under which it is remembered: "job/attempt/occasion"."""
        return f"{self.job}/{self.attempt}/{self.occasion}"


@dataclass(frozen=True, slots=True)
class PairRate:
    """One test between two nodes."""

    left: NodeName
    right: NodeName
    gbps: float | None  #: 10^9 bytes a second; None: it was not done


@dataclass(frozen=True, slots=True)
class PairsTested:
    """One round of a localisation was run: disjoint pairs, side by side."""

    inquiry: Inquiry
    round: int  #: 0, 1, ...
    rates: tuple[PairRate, ...]
    at: datetime

    @property
    def cluster(self) -> ClusterName:
        """Where it was run."""
        return self.inquiry.cluster


class OrderKind(StrEnum):
    """What a person may ask for."""

    SUBMIT = "submit"  #: subject: job; body: JobSpec in plain types
    STOP = "stop"  #: subject: job
    PROMOTE = "promote"  #: subject: job; body: url of the replica, and whether the vault is lost
    CORDON = "cordon"  #: subject: node
    UNCORDON = "uncordon"
    DRAIN = "drain"
    QUARANTINE = "quarantine"
    RELEASE = "release"  #: from quarantine or drain, to burn-in
    ANNOUNCE = "announce"  #: subject: cluster, or cluster/cohort; a change that may begin a chaos


@dataclass(frozen=True, slots=True)
class Ordered:
    """A person asked for something; carried out by `reconcile`, answered in the ledger."""

    number: int  #: the order's row; orders are settled exactly once
    at: datetime
    by: str
    kind: OrderKind
    subject: str
    reason: str
    body: dict[str, Any] = field(default_factory=dict)


Observation = (
    InventorySeen
    | ProviderFailed
    | AgentSeen
    | AgentSilent
    | AgentGone
    | NodeReached
    | NodeUnreached
    | Probed
    | Examined
    | RegisterSeen
    | RegisterSilent
    | Accused
    | PairsTested
    | Ordered
)
