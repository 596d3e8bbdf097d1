"""What a rank told of its own time in the last steps, as the controller is told it.

Kept by the agent for each rank and generation. Standard library only, Python 3.10.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Tuple

STEPS = 50  #: that are told: as many as `healthchecks.stragglers` looks at
ROLE_MAX = 40  #: characters of a rank's role
SECONDS_MAX = 86_400.0  #: a longer step is none


class Paces:
    """The newest steps of one rank without a gap between them."""

    def __init__(self) -> None:
        """Begin without any."""
        self.step: int | None = None  #: of the newest
        self._own: Deque[float] = deque(maxlen=STEPS)

    def add(self, step: int | None, own: float | None) -> None:
        """Take in one step; a gap, a step without its time, or a wrong one begins anew."""
        if step is None or step == self.step:
            return
        known = own is not None and 0 <= own < SECONDS_MAX
        if self.step is not None and step != self.step + 1:
            self._own.clear()
        if own is None or not known:
            self._own.clear()
            self.step = None
            return
        self._own.append(float(f"{own:.4g}"))
        self.step = step

    @property
    def own(self) -> Tuple[float, ...]:
        """Seconds of its own in each step, the newest last, which is that of `step`."""
        return tuple(self._own)
