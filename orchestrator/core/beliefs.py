"""What we hold to be true: the fold of all observations. Versioned rows of the ledger.

`assess` (see assess.py) makes new beliefs from old ones and new observations; each belief keeps
the moment of the newest fact it rests on, so that late and repeated observations change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.nodes import ClusterName, JobName, NodeName
from orchestrator.core.observations import MachineSeen, Ordered, RegisterSeen
from orchestrator.core.verdicts import Finding
from orchestrator.runtime.reports import AgentReport

VERSION = 1  #: of the beliefs; a ledger with a newer one is refused


@dataclass(frozen=True, slots=True)
class AgentBelief:
    """The newest we know of one attempt's agent on one node."""

    job: JobName
    attempt: int
    report: AgentReport | None = None  #: its last answer, notes stripped
    answered_at: datetime | None = None
    silent_since: datetime | None = None  #: first silence after the last answer
    silence: str = ""
    gone_at: datetime | None = None  #: proven gone at; cleared by a later answer
    proof: str = ""


@dataclass(frozen=True, slots=True)
class NodeBelief:
    """What we hold of one node."""

    node: NodeName
    reached_at: datetime | None = None  #: last time a command ran there or an agent answered
    unreached_since: datetime | None = None  #: first failure after that; None while reachable
    unreached_error: str = ""
    boot_id: str = ""
    seen: MachineSeen | None = None  #: what the provider last said
    seen_at: datetime | None = None
    findings: tuple[Finding, ...] = ()  #: newest per key, of the present boot, sorted by key
    probed_at: datetime | None = None  #: last complete probe
    agents: tuple[AgentBelief, ...] = ()  #: sorted by (job, attempt)

    def agent(self, job: JobName | None, attempt: int | None) -> AgentBelief | None:
        """Return what we know of this attempt's agent here."""
        return next((a for a in self.agents if (a.job, a.attempt) == (job, attempt)), None)


@dataclass(frozen=True, slots=True)
class ClusterBelief:
    """What we hold of one cluster and its provider's API."""

    cluster: ClusterName
    listed_at: datetime | None = None
    failing_since: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class RegisterBelief:
    """What we hold of one run's register."""

    job: JobName
    seen: RegisterSeen | None = None
    silent_since: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Beliefs:
    """Everything we hold, keyed by name; equal for equal observations whatever their order."""

    nodes: dict[NodeName, NodeBelief] = field(default_factory=dict)
    clusters: dict[ClusterName, ClusterBelief] = field(default_factory=dict)
    registers: dict[JobName, RegisterBelief] = field(default_factory=dict)
    orders: tuple[Ordered, ...] = ()  #: not yet settled, by number
