"""A fleet file as the plan of a world."""

from __future__ import annotations

from orchestrator.config.simulation import CohortFile, FleetFile, JobFile
from orchestrator.simulation.agenda import WEEK
from orchestrator.simulation.plan import (
    ClusterPlan,
    CohortPlan,
    JobPlan,
    Kind,
    Plan,
    ProbePlan,
    RepairPlan,
    Times,
)


def plan_of(file: FleetFile, days: float | None = None) -> Plan:
    """Return the world that a fleet file describes."""
    return Plan(
        clusters=tuple(
            ClusterPlan(
                one.name,
                one.provider,
                tuple(_cohort(cohort) for cohort in one.cohorts),
                one.sku,
                one.gpus,
                one.price_per_hour,
                one.can,
            )
            for one in file.clusters
        ),
        jobs=tuple(_job(one) for one in file.jobs),
        days=file.days if days is None else days,
        mix={Kind(name): weight for name, weight in file.faults.items() if weight > 0},
        times=Times(
            detect=file.times.detect.total_seconds(),
            recover=file.times.recover.total_seconds(),
            cold=file.times.cold.total_seconds(),
        ),
        repair=RepairPlan(
            file.repair.easy_share,
            file.repair.easy.total_seconds(),
            file.repair.hard.total_seconds(),
            file.repair.spread,
        ),
        probes=ProbePlan(file.probes.miss, file.probes.false_alarms_per_node_year),
    )


def _cohort(file: CohortFile) -> CohortPlan:
    return CohortPlan(
        file.name,
        file.nodes,
        file.failures_per_node_week,
        file.early_failures_per_node_week,
        file.early.total_seconds() / WEEK,
        file.lemons,
        file.lemon_factor,
        file.idle_share,
    )


def _job(file: JobFile) -> JobPlan:
    return JobPlan(
        name=file.name,
        nodes=file.nodes,
        nodes_min=file.nodes_min,
        clusters=file.clusters,
        submitted_at=file.after.total_seconds(),
        interval=file.interval.total_seconds(),
        stall=file.stall.total_seconds(),
        lag=file.lag.total_seconds(),
        stop_after=None if file.stop_after is None else file.stop_after.total_seconds(),
        work=None if file.work is None else file.work.total_seconds(),
    )
