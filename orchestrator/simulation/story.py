"""The story of one incident of a simulated world: what happened, and what was done about it."""

from __future__ import annotations

from orchestrator.simulation.agenda import moment
from orchestrator.simulation.engine import Simulation

BEFORE, AFTER = 5.0, 60.0  #: seconds told before training stopped and after it went on
LINES_MAX = 400


def costliest(sim: Simulation) -> list[str]:
    """Return the story of the stop that cost most time, a line each; none if nothing stopped."""
    worst = sim.outages.worst
    if worst is None:
        return []
    lines = [
        f"{worst.job} stood for {worst.seconds:.0f} s from {moment(worst.start):%Y-%m-%d %H:%M:%S}"
        f" on: {worst.because}"
    ]
    told: list[tuple[float, str]] = [
        (one.at, f"world: {one.kind.value} on {one.node}")
        for one in sim.weather.failed
        if worst.start - BEFORE <= one.at <= worst.end + AFTER
    ]
    told += worst.told
    lines += [f"{moment(at):%H:%M:%S.%f}"[:-3] + f"  {text}" for at, text in sorted(told)]
    return lines[:LINES_MAX]
