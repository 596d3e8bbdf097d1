"""How far the ranks of one generation came on this node: what the note that ends it says.

Accounts are made of it: which step was the first and the last and when, and how long checkpoints
stood in the way. Standard library only, Python 3.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TELLERS = 2  #: members that tell it: the first, and one more in case that one is lost


@dataclass
class Course:
    """Steps and stalls of one generation. Moments are epoch seconds."""

    first_step: int | None = None  #: the first that was completed
    first_step_at: float | None = None
    step: int | None = None  #: the last
    step_at: float | None = None
    stalled_seconds: float | None = None  #: of all saves; None: none was measured here
    told: bool = False

    def stepped(self, step: int, at: float) -> None:
        """Take in that a rank completed a step; of several ranks the one that is ahead counts."""
        if self.first_step is None:
            self.first_step, self.first_step_at = step, at
        if self.step is None or step > self.step:
            self.step, self.step_at = step, at

    def stalled(self, seconds: float) -> float:
        """Take in how long a save stopped the training; return the sum so far."""
        self.stalled_seconds = round((self.stalled_seconds or 0.0) + max(0.0, seconds), 4)
        return self.stalled_seconds

    def facts(self) -> dict[str, Any]:
        """Return what is known of it, as plain JSON types."""
        named = ("first_step", "first_step_at", "step", "step_at", "stalled_seconds")
        return {name: value for name in named if (value := getattr(self, name)) is not None}
