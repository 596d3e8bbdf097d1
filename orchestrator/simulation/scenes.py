"""The worlds people ask for: Table 4, a fleet of their own, a trace; as plain JSON types."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.policies import Policy
from orchestrator.simulation import baseline
from orchestrator.simulation.agenda import DAY, WEEK
from orchestrator.simulation.engine import Simulation
from orchestrator.simulation.plan import Plan
from orchestrator.simulation.report import job_report, world_report
from orchestrator.simulation.table4 import ROWS, TWO_PHASES, Row, constants
from orchestrator.simulation.table4 import plan_of as row_plan
from orchestrator.simulation.trace import LEAD, Trace
from orchestrator.simulation.trace import plan_of as trace_plan

BASELINE_SEEDS = 20
Progress = Callable[[str, float], None]  #: name of a world, share of it that is over


def play(
    plan: Plan, policy: Policy, seed: int, progress: Callable[[float], None] | None = None
) -> Simulation:
    """Let a whole world happen; `progress` is told the share that is over."""
    sim = Simulation(plan, policy, seed)
    sim.begin()
    total = plan.seconds
    sim.run(total, None if progress is None else lambda now: progress(now / total))
    sim.end()
    return sim


def table4(policy: Policy, seed: int, days: float, progress: Progress | None = None) -> Any:
    """Play every row of Table 4, and one unlabelled year of two phases."""
    rows = [*ROWS, TWO_PHASES]
    jobs = [(row, policy, seed, days) for row in rows]
    found = []
    for row, figures in zip(rows, _spread(jobs), strict=True):
        found.append(figures)
        if progress is not None:
            progress(row.name, 1.0)
    return {"seed": seed, "days": days, "constants": constants(), "rows": found}


def _spread(jobs: list[tuple[Row, Policy, int, float]]) -> Iterator[dict[str, Any]]:
    """Play rows side by side where there are cores for it; equal to one after the other."""
    workers = min(len(jobs), os.cpu_count() or 1)
    if workers == 1:
        yield from map(play_row, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(play_row, jobs)


def play_row(job: tuple[Row, Policy, int, float]) -> dict[str, Any]:
    """Play one row of Table 4."""
    row, policy, seed, days = job
    sim = play(row_plan(row, days), policy, seed)
    figures = job_report(sim, "train")
    world = world_report(sim)
    rate = row.failures_per_week / WEEK
    manual = baseline.mean_efficiency(rate, days * DAY, range(seed, seed + BASELINE_SEEDS))
    if row.early_weeks:
        manual = _two_phase_baseline(row, days, seed)
    return {
        "row": row.name,
        "nodes": row.nodes,
        "failures_per_week": world["failures_per_week"],
        "ettr": figures["ettr"],
        "ettr_no_wait": figures["ettr_no_wait"],
        "ettr_baseline": round(manual, 5),
        "interval_min": figures["interval_min"],
        "spares": figures["spares_wanted"],
        "spare_cost_share": figures["spare_cost_share"],
        "phase_p": figures["phase_p"],
        "evictions": world["evictions"],
        "false_evictions": world["false_evictions"],
        "healthy_jobs_killed": world["healthy_jobs_killed"],
        "stops": figures["stops"],
        "waited_share": figures["waited_share"],
        "phases": world["phases"],
    }


def _two_phase_baseline(row: Row, days: float, seed: int) -> float:
    early = min(days, row.early_weeks * 7.0)
    shares = ((row.early_per_week, early), (row.failures_per_week, days - early))
    seeds = range(seed, seed + BASELINE_SEEDS)
    return (
        sum(
            baseline.mean_efficiency(per_week / WEEK, span * DAY, seeds) * span
            for per_week, span in shares
            if span > 0
        )
        / days
    )


def trace(
    found: Trace,
    nodes: int,
    policy: Policy,
    seed: int,
    days: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[dict[str, Any], Simulation]:
    """Play a trace to a fleet of so many nodes."""
    plan, assumed = trace_plan(found, nodes, days)
    sim = play(plan, policy, seed, progress)
    world, figures = world_report(sim), job_report(sim, "train")
    hit = sorted(one.at - LEAD for one in sim.weather.failed if one.in_use)
    answer = {
        "nodes": len(sim.world.machines),
        "gang": plan.jobs[0].nodes,
        "days": round(plan.days, 3),
        "failures": len(found.outages),
        "failures_in_use": len(hit),
        "evictions": world["evictions"],
        "false_evictions": world["false_evictions"],
        "ettr": figures["ettr"],
        "ettr_no_wait": figures["ettr_no_wait"],
        "ettr_baseline": round(baseline.efficiency(_positive(hit), plan.seconds - LEAD), 5),
        "healthy_jobs_killed": world["healthy_jobs_killed"],
        "interval_min": figures["interval_min"],
        "phases": _dated(world["phases"], found),
        "assumed": [*found.assumed, *assumed],
    }
    return answer, sim


def _positive(moments: Iterable[float]) -> Iterator[float]:
    return (moment for moment in moments if moment >= 0)


def _dated(phases: list[dict[str, Any]], found: Trace) -> list[dict[str, Any]]:
    """Say when phases were in the trace's own time."""
    if found.began_at is None:
        return phases
    first = found.began_at.timestamp() - LEAD

    def date(second: float) -> str:
        return datetime.fromtimestamp(first + second, UTC).isoformat(timespec="seconds")

    return [{**one, "from": date(one["from"]), "to": date(one["to"])} for one in phases]
