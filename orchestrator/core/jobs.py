"""Jobs and attempts: the wish, and each launch of it.

A job is what a person wants run; an attempt is one launch of it on one cluster, opened by a fence
in the run's commit register; a grant says which nodes the attempt may use; inside it the gang forms
generations by itself, which the core only reads (`runtime.lineage`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from orchestrator.core.nodes import ClusterName, JobName, NodeName
from orchestrator.errors import PermanentError


class JobState(StrEnum):
    """Where a job stands."""

    __hash__ = str.__hash__  # that of Enum is slow, and states are looked up all the time

    PENDING = "pending"  #: waits for nodes, or for its first attempt
    RUNNING = "running"  #: has an open attempt
    STOPPING = "stopping"  #: a person asked for its end
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


J = JobState
JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    J.PENDING: frozenset({J.RUNNING, J.STOPPING, J.STOPPED, J.FAILED}),
    J.RUNNING: frozenset({J.PENDING, J.STOPPING, J.SUCCEEDED, J.FAILED}),
    J.STOPPING: frozenset({J.STOPPED, J.SUCCEEDED, J.FAILED}),
    J.SUCCEEDED: frozenset(),
    J.FAILED: frozenset(),
    J.STOPPED: frozenset(),
}
del J

#: States from which a job never returns.
OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED})


class WhenAlone(StrEnum):
    """What a gang does while it hears neither the controller nor the register."""

    CONTINUE = "continue"  #: the register fences it: it may train, it cannot commit
    STOP_AFTER = "stop_after"  #: it stops its ranks after `JobSpec.stop_after`


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What the core needs to know of a job. What only agents need travels in `launch`, opaque."""

    nodes_min: int
    nodes_max: int
    ranks_per_node: int = 1
    accelerator: str | None = None  #: SKU that a node must have, or None for any
    clusters: tuple[ClusterName, ...] = ()  #: allowed clusters in order of preference; () is any
    when_alone: WhenAlone = WhenAlone.CONTINUE
    stop_after: timedelta = timedelta(minutes=15)
    stop_grace: timedelta = timedelta(seconds=10)
    generations_max: int = 50
    budget: dict[str, int] = field(default_factory=dict)  #: generations per cause and attempt
    attempts_max: int = 10
    priority: int = 0
    register: str | None = None  #: URL of the commit register; None forbids standbys
    checkpoints: str | None = None  #: URL of the vault
    launch: dict[str, Any] = field(default_factory=dict)  #: command, env, ...: see config.JobFile


@dataclass(frozen=True, slots=True)
class Job:
    """One wish, as the ledger holds it."""

    name: JobName
    spec: JobSpec
    state: JobState
    submitted_at: datetime
    since: datetime  #: when it entered `state`
    reason: str = ""
    attempts: int = 0  #: number of the last attempt that was opened
    former: int = 0  #: attempts up to this one had another register: no fence of ours ends them
    fingerprint: str = ""  #: of the failure that ended the last failed attempt
    commits: int = 0  #: how many commits counted then
    alike: int = 0  #: attempts in a row that failed so, with nothing committed in between
    fruitless: int = 0  #: attempts in a row that failed somehow, with nothing committed in between

    @property
    def signature(self) -> str:
        """Return how its fences are signed: two jobs may be given the same register."""
        return f"{self.name}@{self.submitted_at.isoformat()}"


class AttemptState(StrEnum):
    """Where an attempt stands."""

    __hash__ = str.__hash__  # that of Enum is slow, and states are looked up all the time

    OPENING = "opening"  #: decided; its fence may or may not be in the register
    OPEN = "open"  #: its fence counts; agents and ranks may run
    CLOSING = "closing"  #: its agents are being stopped
    CLOSED = "closed"  #: every agent of it is proven gone, or fenced off for good


A = AttemptState
ATTEMPT_MOVES: dict[AttemptState, frozenset[AttemptState]] = {
    A.OPENING: frozenset({A.OPEN, A.CLOSING}),
    A.OPEN: frozenset({A.CLOSING}),
    A.CLOSING: frozenset({A.CLOSED}),
    A.CLOSED: frozenset(),
}
del A


class UnlawfulStepError(PermanentError):
    """A job or an attempt was asked to go where none may go from its state."""

    def __init__(self, subject: str, start: StrEnum, end: StrEnum) -> None:
        """Name the job or attempt and the step that was refused."""
        super().__init__(f"{subject} cannot go from {start} to {end}")
        self.subject, self.start, self.end = subject, start, end


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  #: budgets spent, or it cannot be started at all
    MOVED = "moved"  #: given up for an attempt on another cluster
    STOPPED = "stopped"  #: a person asked for it


@dataclass(frozen=True, slots=True)
class SeatGrant:
    """A grant as the core remembers it (its wire form is `runtime.grants.Grant`)."""

    number: int
    nodes: tuple[NodeName, ...]
    standbys: tuple[NodeName, ...]
    addresses: tuple[tuple[NodeName, str], ...]  #: "host:port#agent" each seat had when granted
    issued_at: datetime
    reason: str
    abandoned: int | None = None  #: seq of the generation that others may go on without

    @property
    def seats(self) -> tuple[NodeName, ...]:
        """Every node it names."""
        return (*self.nodes, *self.standbys)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One launch of a job on one cluster."""

    job: JobName
    number: int
    cluster: ClusterName
    state: AttemptState
    since: datetime
    opened_at: datetime
    grant: SeatGrant | None = None  #: the newest grant issued
    outcome: Outcome | None = None  #: set with CLOSING
    reason: str = ""
    every: timedelta | None = None  #: interval between checkpoints that is asked of it
