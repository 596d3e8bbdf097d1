"""What a run leaves behind while it runs: the heartbeats of every step, from every node's folder.

Agents write each completed step of each rank to `progress.jsonl`. From these lines alone come loss
per step, repeated steps, and the moment at which all ranks had completed a step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Beat:
    """One rank completed one step."""

    node: str
    run: str  #: JOB.ATTEMPT
    rank: int
    step: int
    at: float  #: epoch seconds
    loss: float | None


@dataclass(slots=True)
class Watch:
    """Reads the progress files of all nodes of a fleet of local clusters, a little at a time."""

    state: Path
    job: str
    world: int
    beats: list[Beat] = field(default_factory=list)
    _read: dict[Path, int] = field(default_factory=dict)  #: bytes read of each file
    _first: dict[tuple[int, int], float] = field(default_factory=dict)

    def look(self) -> None:
        """Read what is new."""
        pattern = f"clusters/*/*/attempts/{self.job}.*/progress.jsonl"
        for path in sorted(self.state.glob(pattern)):
            for beat in self._new_lines(path):
                self.beats.append(beat)
                key = (beat.rank, beat.step)
                self._first[key] = min(beat.at, self._first.get(key, beat.at))

    def _new_lines(self, path: Path) -> Iterator[Beat]:
        start = self._read.get(path, 0)
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
        whole, newline, _ = data.rpartition(b"\n")
        self._read[path] = start + len(whole) + len(newline)
        node, run = path.parents[2].name, path.parent.name
        for line in whole.splitlines():
            beat = _beat(node, run, line)
            if beat is not None:
                yield beat

    @property
    def done(self) -> int:
        """The highest step that every rank has completed."""
        return self.done_before(float("inf"))

    def done_before(self, moment: float) -> int:
        """Return the highest step that every rank had completed at `moment`; 0 before the first."""
        steps = [
            max((s for (r, s), at in self._first.items() if r == rank and at <= moment), default=0)
            for rank in range(self.world)
        ]
        return min(steps)

    def resumed_at(self, moment: float) -> float | None:
        """Return when all ranks completed a step that none had completed together at `moment`."""
        step = self.done_before(moment) + 1
        moments = [
            min(
                (b.at for b in self.beats if b.rank == rank and b.step >= step and b.at > moment),
                default=None,
            )
            for rank in range(self.world)
        ]
        known = [at for at in moments if at is not None]
        return max(known) if len(known) == self.world else None

    def repeated(self, start: float, end: float) -> int:
        """Count the steps done again between two moments: a step counts once however many ranks."""
        before = {(beat.rank, beat.step) for beat in self.beats if beat.at <= start}
        after = {(beat.rank, beat.step) for beat in self.beats if start < beat.at <= end}
        return len({step for _, step in before & after})

    def losses(self) -> dict[int, float]:
        """Return the last loss that rank 0 told of each step."""
        told = sorted((beat for beat in self.beats if beat.rank == 0), key=lambda beat: beat.at)
        return {beat.step: beat.loss for beat in told if beat.loss is not None}

    def span(self) -> tuple[float, float]:
        """Return the moments of the first and the last beat."""
        moments = [beat.at for beat in self.beats]
        return min(moments), max(moments)

    def median_step(self) -> float:
        """Return the median seconds between two steps of rank 0 that follow each other."""
        times = sorted((beat.step, beat.at) for beat in self.beats if beat.rank == 0)
        gaps = sorted(
            later[1] - earlier[1]
            for earlier, later in pairwise(times)
            if later[0] == earlier[0] + 1 and later[1] > earlier[1]
        )
        return gaps[len(gaps) // 2] if gaps else 0.0


def _beat(node: str, run: str, line: bytes) -> Beat | None:
    """Read one line; None if it tells no step, or lost its end when the node lost its power."""
    try:
        body = json.loads(line)
    except ValueError:
        return None
    match body:
        case {"rank": int(rank), "step": int(step), "at": float(at) | int(at)}:
            return Beat(node, run, rank, step, at, body.get("loss"))
        case _:
            return None
