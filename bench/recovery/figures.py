"""From what ranks noted to what a kill cost. Pure but for reading the notes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """A rank completed a step."""

    at: float
    step: int
    pid: int


@dataclass(frozen=True)
class Kill:
    """What one kill cost. Seconds."""

    first_step_s: float  #: to the first step that every rank completed afterwards
    first_new_step_s: float  #: to the first that not every rank had completed before
    steps_repeated: int
    step_s: float  #: median undisturbed step before the kill


def read(out: Path, world: int) -> dict[int, list[Note]]:
    """Return the notes of each rank, a line that is not whole left out."""
    found: dict[int, list[Note]] = {}
    for rank in range(world):
        path = out / f"rank{rank}"
        text = path.read_text() if path.exists() else ""
        lines = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
        found[rank] = [Note(float(at), int(step), int(pid)) for at, step, pid in lines]
    return found


def common_step(notes: dict[int, list[Note]]) -> int:
    """Return the last step that every rank completed; 0 if there is none."""
    return min(max((note.step for note in mine), default=0) for mine in notes.values())


def pid_of(notes: dict[int, list[Note]], rank: int) -> int:
    """Return the process behind a rank."""
    return notes[rank][-1].pid


def judge(notes: dict[int, list[Note]], killed_at: float, killed_pid: int) -> Kill | None:
    """Return what a kill cost; None while no new step is completed by all."""
    before = {r: [n for n in mine if n.at <= killed_at] for r, mine in notes.items()}
    last = common_step(before)
    done_by_any = max(note.step for mine in notes.values() for note in mine if note.at <= killed_at)
    after = {
        r: [n for n in mine if n.at > killed_at and n.pid != killed_pid]
        for r, mine in notes.items()
    }
    first = _completed(after, 0)
    new = _completed(after, last + 1)
    if first is None or new is None:
        return None
    resumed = min(note.step for mine in after.values() for note in mine if note.at > killed_at)
    paces = [b.at - a.at for mine in before.values() for a, b in pairwise(mine[3:])]
    return Kill(
        first_step_s=first - killed_at,
        first_new_step_s=new - killed_at,
        steps_repeated=max(0, done_by_any + 1 - max(resumed, 1)) if resumed <= last else 0,
        step_s=statistics.median(paces),
    )


def _completed(after: dict[int, list[Note]], least: int) -> float | None:
    """Return when every rank had completed one same step, `least` or later."""
    times = [{n.step: n.at for n in reversed(mine) if n.step >= least} for mine in after.values()]
    shared = set(times[0]).intersection(*times[1:])
    return min((max(one[step] for one in times) for step in shared), default=None)


def summary(kills: Sequence[Kill]) -> dict[str, float | int]:
    """Return the medians."""

    def median(name: str) -> float:
        return round(statistics.median(getattr(kill, name) for kill in kills), 4)

    names = ("first_new_step_s", "first_step_s", "steps_repeated", "step_s")
    return {**{name: median(name) for name in names}, "rounds": len(kills)}
