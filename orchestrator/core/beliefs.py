"""What we hold to be true: the fold of all observations. Versioned rows of the ledger.

`assess` (see assess.py) makes new beliefs from old ones and new observations; each belief keeps
the moment of the newest fact it rests on, so that late and repeated observations change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.cohorts import Announcement, CohortBelief, Listing, Sign, Trouble
from orchestrator.core.detectors import Detector
from orchestrator.core.firings import Firing
from orchestrator.core.nodes import ClusterName, JobName, NodeName
from orchestrator.core.observations import (
    Accused,
    Inquiry,
    MachineSeen,
    Ordered,
    PairsTested,
    Power,
    RegisterSeen,
)
from orchestrator.core.verdicts import Finding
from orchestrator.runtime.reports import AgentReport, Note

VERSION = 2  #: of the beliefs; a ledger with a newer one is refused


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
    told: tuple[datetime, str] | None = None  #: newest proof anybody gave, whatever came later
    notes: tuple[Note, ...] = ()  #: newest of each kind in `assess.KEPT`, of this agent process
    lately: tuple[datetime, ...] = ()  #: silences within `assess.LATENESS` of the newest


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of a node: its id and the moments between which it was seen."""

    id: str
    first_at: datetime
    last_at: datetime  #: last time that the node named it; `first_at` if only its provider did
    probed_at: datetime | None = None  #: last complete probe of it
    own_at: datetime | None = None  #: first time that the node itself named it, not its provider


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
    cluster: ClusterName | None = None  #: whose listing named it last
    provider: str = ""
    stopped_at: datetime | None = None  #: last moment its provider vouched that it is off
    boots: tuple[Boot, ...] = ()  #: the last few; the present one last: the node's own word
    lately: tuple[datetime, ...] = ()  #: failures within `assess.LATENESS` of the newest
    running_at: datetime | None = None  #: first listed as running, as the present machine
    signs: tuple[Sign, ...] = ()  #: that it failed; not yet drawn into its cohort
    trouble: Trouble | None = None  #: its last failure that its cohort knows of
    firings: tuple[Firing, ...] = ()  #: of the last weeks, labelled or not: see `firings`
    accused: tuple[Accused, ...] = ()  #: newest last; those of the last day
    examined_at: datetime | None = None  #: last active checks that no work ended
    witnessed: bool = False  #: called off and out of reach, yet its gang hears it

    @property
    def called_off(self) -> bool:
        """Say whether the provider calls the machine off, and nothing spoke since."""
        if self.seen is None or self.seen_at is None or self.seen.power is not Power.STOPPED:
            return False
        return self.reached_at is None or self.reached_at <= self.seen_at

    @property
    def power_off(self) -> bool:
        """Say whether the provider calls it off *and* nobody hears it: neither we nor its gang.

        The provider's word alone may be stale, and then a healthy machine would be given away.
        """
        return self.called_off and self.unreached_since is not None and not self.witnessed

    @property
    def booted_at(self) -> datetime | None:
        """Say when the node itself named its present boot first; its provider's word is not it."""
        return self.boots[-1].own_at if self.boots else None

    def agent(self, job: JobName | None, attempt: int | None) -> AgentBelief | None:
        """Return what we know of this attempt's agent here."""
        return next((a for a in self.agents if (a.job, a.attempt) == (job, attempt)), None)


@dataclass(frozen=True, slots=True)
class ClusterBelief:
    """What we hold of one cluster and its provider's API."""

    cluster: ClusterName
    listed_at: datetime | None = None
    filled_at: datetime | None = None  #: last listing that named a machine at all
    failing_since: datetime | None = None
    error: str = ""
    lately: tuple[datetime, ...] = ()
    listings: tuple[Listing, ...] = ()  #: machines running, not yet drawn into the cohorts
    announced: tuple[Announcement, ...] = ()  #: by people, not yet drawn into the cohorts


@dataclass(frozen=True, slots=True)
class RegisterBelief:
    """What we hold of one run's register."""

    job: JobName
    seen: RegisterSeen | None = None
    silent_since: datetime | None = None
    error: str = ""
    lately: tuple[datetime, ...] = ()
    advanced: tuple[int, datetime] | None = None  #: newest seq that counts, and when first seen
    formed: tuple[int, datetime] | None = None  #: newest generation's seq, and when first seen


@dataclass(frozen=True, slots=True)
class LinkBelief:
    """What we hold of the links between some nodes: the rounds of one localisation."""

    inquiry: Inquiry
    rounds: tuple[PairsTested, ...] = ()  #: by number, each once

    @property
    def tested_at(self) -> datetime:
        """Return when its newest round was run."""
        return max(one.at for one in self.rounds)


@dataclass(frozen=True, slots=True)
class Beliefs:
    """Everything we hold, keyed by name; equal for equal observations whatever their order."""

    nodes: dict[NodeName, NodeBelief] = field(default_factory=dict)
    clusters: dict[ClusterName, ClusterBelief] = field(default_factory=dict)
    registers: dict[JobName, RegisterBelief] = field(default_factory=dict)
    orders: tuple[Ordered, ...] = ()  #: not yet settled, by number
    answered: tuple[int, ...] = ()  #: numbers of the orders settled last, so that none comes twice
    cohorts: dict[str, CohortBelief] = field(default_factory=dict)  #: by "cluster/cohort"
    detectors: dict[str, Detector] = field(default_factory=dict)  #: those with a label; by name
    links: dict[str, LinkBelief] = field(default_factory=dict)  #: by name; of the last day
    #: No agent that is gone need be forgotten before; None: unknown. Not a belief, only a hint.
    forget_at: datetime | None = field(default=None, compare=False, repr=False)
    #: Nodes that are called off and out of reach: a reminder for `assess`; None: to be found out.
    offs: frozenset[NodeName] | None = field(default=None, compare=False, repr=False)
