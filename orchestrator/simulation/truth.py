"""What really became of each job's time: the simulator's own books, kept beside the product's.

The product's accounts (`core.accounts`) are told events and must come to the same figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Doing(StrEnum):
    """What a job's seats do at a moment."""

    NOTHING = "nothing"  #: it has no seats
    STARTING = "starting"  #: before its first step ever
    TRAINING = "training"
    UNNOTICED = "unnoticed"  #: it stands, and nobody knows yet
    RESTARTING = "restarting"  #: noticed; on its way to the next step
    SHORT = "short"  #: it lacks nodes


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
