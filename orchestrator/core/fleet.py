"""The snapshot that decisions are made on: state, beliefs, intents in flight, budgets used."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import Incident, Intent, Settled
from orchestrator.core.jobs import Attempt, Job
from orchestrator.core.nodes import ClusterName, JobName, Node, NodeName, ProviderName


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster as configured: nodes sharing one fabric and one provider."""

    name: ClusterName
    provider: ProviderName
    can: frozenset[str] = frozenset()  #: capabilities: reboot, reprovision, replace, ...


@dataclass(frozen=True, slots=True)
class Used:
    """Something that counts against a budget, done at a moment."""

    kind: str  #: "eviction", a step of the repair ladder, "agent-start"
    subject: str  #: "cluster/cohort" for evictions, node for repairs, "node/job/attempt"
    at: datetime


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything at one moment. `now` is a field: nobody in the core looks at a clock."""

    now: datetime
    clusters: tuple[Cluster, ...] = ()
    nodes: dict[NodeName, Node] = field(default_factory=dict)
    jobs: dict[JobName, Job] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()  #: not CLOSED ones, and the last of each job
    beliefs: Beliefs = field(default_factory=Beliefs)
    intents: tuple[Intent, ...] = ()  #: without an outcome yet
    incidents: tuple[Incident, ...] = ()  #: open ones
    used: tuple[Used, ...] = ()  #: within the last day
    settled: tuple[Settled, ...] = ()  #: newest outcome of each key, within the last day
