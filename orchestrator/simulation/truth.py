"""What really became of each job's time: the simulator's own books, kept beside the product's.

The product's accounts (`core.accounts`) are told events and must come to the same figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from orchestrator.core.nodes import NodeName, NodeState


class Doing(StrEnum):
    """What a job's seats do at a moment."""

    NOTHING = "nothing"  #: it has no seats
    STARTING = "starting"  #: before its first step ever
    TRAINING = "training"
    UNNOTICED = "unnoticed"  #: it stands, and nobody knows yet
    RESTARTING = "restarting"  #: noticed; on its way to the next step
    SHORT = "short"  #: it lacks nodes


@dataclass(frozen=True, slots=True)
class Turn:
    """From here on the seats of an attempt do something else, or others are members."""

    at: float
    attempt: int
    doing: Doing
    members: tuple[NodeName, ...]


@dataclass(frozen=True, slots=True)
class Seated:
    """From here on a node is seated so; None: it is not."""

    at: datetime
    node: NodeName
    state: NodeState | None


@dataclass(slots=True)
class Log:
    """What befell one job, in order: what its bill is made of (`bill`)."""

    turns: list[Turn] = field(default_factory=list)
    seats: list[Seated] = field(default_factory=list)
    opened: list[datetime] = field(default_factory=list)  #: attempts
    resumed: list[tuple[float, float]] = field(default_factory=list)  #: (at, work it went on from)


@dataclass(slots=True)
class Books:
    """The time of one job."""

    submitted_at: float
    first_step_at: float | None = None
    doing: Doing = Doing.NOTHING
    since: float = 0.0
    members: int = 0
    held: int = 0
    spent: dict[Doing, float] = field(default_factory=dict)  #: seconds
    node_seconds: dict[Doing, float] = field(default_factory=dict)  #: of members
    spare_seconds: float = 0.0  #: of seats that hold no ranks
    lost: float = 0.0  #: seconds trained and thrown away
    lost_node_seconds: float = 0.0
    stops: int = 0  #: how often training ended by something wrong
    swaps: int = 0  #: how often it ended for a new grant
    longest: float = 0.0  #: seconds without training, the longest time
    log: Log = field(default_factory=Log)

    def turn(self, now: float, doing: Doing, *, members: int, held: int) -> None:
        """Close the books of what was done until now, and begin with what is done from now on."""
        span = now - self.since
        self.spent[self.doing] = self.spent.get(self.doing, 0.0) + span
        used = span * self.members
        self.node_seconds[self.doing] = self.node_seconds.get(self.doing, 0.0) + used
        self.spare_seconds += span * max(0, self.held - self.members)
        if doing is Doing.TRAINING and self.first_step_at is None:
            self.first_step_at = now
        self.doing, self.since, self.members, self.held = doing, now, members, held

    def lose(self, seconds: float) -> None:
        """Throw trained seconds away."""
        self.lost += max(0.0, seconds)
        self.lost_node_seconds += max(0.0, seconds) * self.members
