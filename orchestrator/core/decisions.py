"""Everything `reconcile` may ask of the world. Each is small, frozen, and says why.

Carried out by `orchestrator.actuators`, one function per decision. Some change only the ledger
(`LEDGER_ONLY`); the others touch the world: their intent is written before, the outcome after.
`key(decision)` is the idempotency key: the same wish, decided again, has the same key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.core.detectors import Authority
from orchestrator.core.firings import FiringLabel
from orchestrator.core.history import History
from orchestrator.core.history import RepairStep as RepairStep
from orchestrator.core.jobs import AttemptState, JobSpec, JobState, Outcome
from orchestrator.core.nodes import ClusterName, Cordon, JobName, Machine, NodeName, NodeState
from orchestrator.core.observations import Inquiry, MachineSeen
from orchestrator.core.pages import Page
from orchestrator.core.verdicts import Channel

#: Of a field that the others determine, and that is too long for a key.
KEYLESS = {"keyless": True}


@dataclass(frozen=True, slots=True)
class Enlist:
    """Take a machine that a provider lists into the fleet, in burn-in."""

    cluster: ClusterName
    provider: str
    seen: MachineSeen
    reason: str
    history: History = field(default_factory=History)  #: of the machine, if we know it
    kin: NodeName | None = None  #: the name under which we knew it
    cordon: Cordon | None = None  #: a person's, that it had under that name


@dataclass(frozen=True, slots=True)
class Renew:
    """Enter what stands under a known name now: another machine, or the same described anew.

    Another machine begins in burn-in with its own history; the old one's is kept as former.
    """

    node: NodeName
    machine: Machine
    reason: str
    fresh: bool  #: another machine, or one that was installed anew; False: only its description
    history: History = field(default_factory=History)  #: with `fresh`: of that machine
    kin: NodeName | None = None  #: with `fresh`: another name under which we knew it
    cordon: Cordon | None = None  #: with `fresh`: a person's


@dataclass(frozen=True, slots=True)
class EndTrial:
    """A seated node earned its trust: its probation is over."""

    node: NodeName
    reason: str


@dataclass(frozen=True, slots=True)
class MoveNode:
    """Change a node's state; with a seat when it enters one."""

    node: NodeName
    start: NodeState
    end: NodeState
    reason: str
    job: JobName | None = None
    attempt: int | None = None
    counts: str = ""  #: the budget that it counts against: "eviction", or none
    fault: str = ""  #: into QUARANTINED or REPAIRING: what the machine's history remembers
    serial: str = ""  #: of the component that is blamed
    step: RepairStep | None = None  #: into REPAIRING: the step of the ladder to be taken
    acquitted: bool = False  #: the last trouble was none: said by the checks it passed
    trained: bool = False  #: out of a gang that made steps on it: remembered with the fault


@dataclass(frozen=True, slots=True)
class SetCordon:
    """Cordon a node, or lift its cordon (None)."""

    node: NodeName
    cordon: Cordon | None
    reason: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Take a submitted job into the ledger."""

    job: JobName
    spec: JobSpec
    reason: str


@dataclass(frozen=True, slots=True)
class MoveJob:
    """Change a job's state."""

    job: JobName
    end: JobState
    reason: str


@dataclass(frozen=True, slots=True)
class SetVault:
    """Let a job go on from another vault, with the register that lies in it."""

    job: JobName
    url: str
    lost: bool  #: a person vouches that nobody will read what older attempts still commit
    reason: str


@dataclass(frozen=True, slots=True)
class SettleOrder:
    """Answer a person's order: done, or refused with the reason."""

    order: int
    done: bool
    reason: str


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """Begin a new attempt: enter it in the ledger as OPENING. Its fence comes next."""

    job: JobName
    attempt: int
    cluster: ClusterName
    reason: str


@dataclass(frozen=True, slots=True)
class MoveAttempt:
    """Change an attempt's state; CLOSING carries the outcome."""

    job: JobName
    attempt: int
    end: AttemptState
    reason: str
    outcome: Outcome | None = None
    fingerprint: str = ""  #: of the failure, if it failed
    commits: int = 0  #: how many commits counted when it failed


@dataclass(frozen=True, slots=True)
class SetCadence:
    """Ask an attempt's gang for another interval between checkpoints."""

    job: JobName
    attempt: int
    every: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class LabelFiring:
    """Write down what came of a detector's firing; the detector's record learns from it."""

    node: NodeName
    detector: str
    channel: Channel
    fired_at: datetime  #: when it began
    label: FiringLabel
    reason: str


@dataclass(frozen=True, slots=True)
class SetAuthority:
    """Promote or demote a detector."""

    detector: str
    authority: Authority
    reason: str


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """Begin to tell people about something."""

    page: Page
    subject: str  #: node, job, cluster or provider
    reason: str


@dataclass(frozen=True, slots=True)
class CloseIncident:
    """The cause is gone."""

    page: Page
    subject: str
    reason: str


# --- decisions that touch the world -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AppendFence:
    """Fence off every older attempt of a run in its commit register."""

    job: JobName
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class StartAgent:
    """Start one guard with its agent on a node (sweeping what an older one left)."""

    node: NodeName
    job: JobName
    attempt: int
    tries: int  #: how often it was started before for this attempt; makes the key new
    reason: str


@dataclass(frozen=True, slots=True)
class IssueGrant:
    """Write the next grant of an attempt and give it to its agents."""

    job: JobName
    attempt: int
    number: int
    nodes: tuple[NodeName, ...]
    standbys: tuple[NodeName, ...]
    addresses: tuple[tuple[NodeName, str], ...]  #: "host:port#agent" of every seat
    reason: str
    abandoned: int | None = None  #: seq of the generation that others may go on without


@dataclass(frozen=True, slots=True)
class GiveGrant:
    """Give the attempt's newest grant to one agent that has not accepted it yet.

    Also to agents that it leaves out: accepting is how they acknowledge the revocation.
    """

    node: NodeName
    job: JobName
    attempt: int
    number: int
    agent: str  #: nonce of the agent process that is meant
    reason: str


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Stop an agent and its ranks, within the job's grace, and prove that nothing is left."""

    node: NodeName
    job: JobName
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class SweepNode:
    """Prove that nothing of an attempt is left on a node whose agent is silent."""

    node: NodeName
    job: JobName
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Ask the provider for one step of the repair ladder. Only for nodes in REPAIRING."""

    node: NodeName
    step: RepairStep
    tries: int  #: steps taken on this node before; makes the key new
    reason: str


@dataclass(frozen=True, slots=True)
class Examine:
    """Run active checks on an idle node. Work that comes to the node ends them at once."""

    node: NodeName
    cluster: ClusterName
    since: datetime  #: of the last ones, or of its idleness; makes the key new
    reason: str


@dataclass(frozen=True, slots=True)
class TestPairs:
    """Run one round of a localisation: test these pairs of nodes, side by side."""

    job: JobName
    attempt: int
    occasion: int
    round: int
    inquiry: Inquiry = field(metadata=KEYLESS)
    pairs: tuple[tuple[NodeName, NodeName], ...] = field(metadata=KEYLESS)
    reason: str

    __test__ = False  # pytest takes a class of this name for one of tests

    @property
    def nodes(self) -> tuple[NodeName, ...]:
        """Everybody who is tested in this round."""
        return tuple(sorted(one for pair in self.pairs for one in pair))


Decision = (
    Enlist
    | Renew
    | MoveNode
    | EndTrial
    | SetCordon
    | Accept
    | MoveJob
    | SetVault
    | SettleOrder
    | OpenAttempt
    | MoveAttempt
    | SetCadence
    | LabelFiring
    | SetAuthority
    | OpenIncident
    | CloseIncident
    | AppendFence
    | StartAgent
    | IssueGrant
    | GiveGrant
    | StopAgent
    | SweepNode
    | Repair
    | TestPairs
    | Examine
)

#: Decisions that change nothing but the ledger. They are applied in order, in one transaction
#: each, before the next tick looks again.
LedgerOnly = (
    Enlist
    | Renew
    | MoveNode
    | EndTrial
    | SetCordon
    | Accept
    | MoveJob
    | SetVault
    | SettleOrder
    | OpenAttempt
    | MoveAttempt
    | SetCadence
    | LabelFiring
    | SetAuthority
    | OpenIncident
    | CloseIncident
    | IssueGrant
)

#: Decisions that touch the world: an intent before, an outcome after.
Effect = AppendFence | StartAgent | GiveGrant | StopAgent | SweepNode | Repair | TestPairs | Examine


@dataclass(frozen=True, slots=True)
class Intent:
    """A decision that touches the world, written before it is carried out."""

    key: str
    decision: Effect
    at: datetime
    deadline: datetime
    token: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of an intent."""

    key: str
    at: datetime
    ok: bool
    text: str
    passing: bool = False  #: it failed for a reason that passes by itself, and did nothing


@dataclass(frozen=True, slots=True)
class Incident:
    """Something people were told about: from its beginning to its end."""

    page: Page
    subject: str
    opened_at: datetime
    reason: str
    closed_at: datetime | None = None
    number: int = 0  #: the ledger's row


def key(decision: Decision) -> str:
    """Return the idempotency key: class and fields, without the reason and what they determine."""
    fields = decision.__dataclass_fields__.items()
    names = [name for name, one in fields if name != "reason" and one.metadata != KEYLESS]
    return ":".join([type(decision).__name__, *(str(getattr(decision, name)) for name in names)])
