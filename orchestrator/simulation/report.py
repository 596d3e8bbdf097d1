"""What a simulated world amounts to: efficiency, cadence, spares, phases, evictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.core.nodes import JobName
from orchestrator.simulation.agenda import WEEK
from orchestrator.simulation.engine import Simulation
from orchestrator.simulation.truth import Books, Doing


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Where the time of one job went, as shares of its time since its first step."""

    wall: float  #: seconds since the first step
    kept: float  #: seconds of training that were kept
    waited: float  #: seconds without enough nodes

    @property
    def ettr(self) -> float:
        """Effective training time ratio: kept training over all time, waiting included."""
        return self.kept / self.wall if self.wall > 0 else 0.0

    @property
    def ettr_no_wait(self) -> float:
        """The same without the time in which there were not enough nodes."""
        rest = self.wall - self.waited
        return self.kept / rest if rest > 0 else 0.0


def efficiency(sim: Simulation, job: str) -> Efficiency:
    """Work out where a job's time went; the simulation must have ended."""
    books = sim.world.books[JobName(job)]
    if books.first_step_at is None:
        return Efficiency(0.0, 0.0, 0.0)
    clocks = [gang.clock for run, gang in sim.world.gangs.items() if run[0] == job]
    stood = sum(clock.stalled + clock.slowed for clock in clocks)
    kept = books.spent.get(Doing.TRAINING, 0.0) - stood - books.lost
    waited = books.spent.get(Doing.SHORT, 0.0)
    return Efficiency(sim.now - books.first_step_at, kept, waited)


def job_report(sim: Simulation, job: str) -> dict[str, Any]:
    """Return one job's figures, as plain JSON types."""
    books: Books = sim.world.books[JobName(job)]
    figures = efficiency(sim, job)
    times = {doing.value: round(seconds, 1) for doing, seconds in books.spent.items()}
    return {
        "job": job,
        "ettr": round(figures.ettr, 5),
        "ettr_no_wait": round(figures.ettr_no_wait, 5),
        "stops": books.stops,
        "swaps": books.swaps,
        "lost_s": round(books.lost, 1),
        "time_s": times,
        "waited_share": round(figures.waited / figures.wall, 5) if figures.wall else 0.0,
        "interval_min": round(sim.mean_interval(job) / 60.0, 2),
        "spares_wanted": sim.samples.mean_spares(job),
        "spare_cost_share": round(_idle_cost(sim, job), 5),
        "phase_p": sim.samples.mean_phase(),
    }


def _idle_cost(sim: Simulation, job: str) -> float:
    """Return what the spares that the policy wanted cost, over what the gang itself cost."""
    gang = sim.world.jobs[JobName(job)].nodes
    return sim.samples.mean_spares(job) / gang


def world_report(sim: Simulation) -> dict[str, Any]:
    """Return everything of one world, as plain JSON types."""
    weeks = sim.now / WEEK
    failed = [one for one in sim.weather.failed if one.in_use]
    wrongly = sum(not one.rightly for one in sim.evictions)
    return {
        "seed": sim.seed,
        "days": round(sim.now / 86_400.0, 3),
        "nodes": len(sim.world.machines),
        "failures": len(failed),
        "failures_per_week": round(len(failed) / weeks, 3) if weeks else 0.0,
        "evictions": len(sim.evictions),
        "false_evictions": wrongly,
        "healthy_jobs_killed": len(sim.witness.killed),
        "jobs": [job_report(sim, job.name) for job in sim.plan.jobs],
        "phases": sim.samples.phases(),
    }
