"""A rank's own time in each step: what it did without waiting for its peers, or for samples.

In a synchronous gang every whole step takes as long as its slowest rank; only a rank's own time
tells who that is (`healthchecks.stragglers`). It is what is left of the time between two heartbeats
without the seconds in collectives. Owned by `training.Run`. Python 3.10.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.runtime.collectives import Recorder, file_of, watch
from orchestrator.runtime.surroundings import Surroundings


class Segments:
    """Measures the steps of one rank."""

    def __init__(
        self, around: Surroundings, *, stopwatch: Callable[[], float] = time.perf_counter
    ) -> None:
        """Watch the collectives of this rank, if its place says that there are records."""
        self._stopwatch = stopwatch
        self.recorder = Recorder(None, stopwatch=stopwatch)
        self.begin(around)

    def begin(self, around: Surroundings) -> None:
        """Begin anew, in the generation that `around` describes."""
        self._watched = around.collectives is not None
        self._last: tuple[int, float] | None = None
        folder = around.collectives
        path = file_of(Path(folder), around.generation, around.rank) if folder else None
        self.recorder.open(path)
        self._found = self._watched and watch(self.recorder)

    def end(self, step: int, data_wait: float = 0.0) -> float | None:
        """Return this rank's own seconds of the step that ends now; None if they are not known.

        `data_wait` is the share of the step that was spent waiting for samples.
        """
        if not self._watched:
            return None
        self._found = self._found or watch(self.recorder)
        now, last = self._stopwatch(), self._last
        self._last, waited = (step, now), self.recorder.take_waited()
        if not self._found or waited is None or last is None or step != last[0] + 1:
            return None
        whole = now - last[1]
        return max(0.0, whole * (1 - data_wait) - waited)
