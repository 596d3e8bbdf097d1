"""The rows of Table 4 of the source report, as worlds: what each provider and phase would cost.

Reka Core, Flash, and Edge (2024), section 2.3, Table 4: mean node failures a week. A row's gang is
`ceil(chips / 8)` nodes of 8 GPUs; its failures a week are kept. "20+" and "30+" are taken as 20 and
30: they are lower bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.simulation.plan import ClusterPlan, CohortPlan, JobPlan, Plan

GPUS = 8
POOL = 0.25  #: of the gang: nodes that may stand by or be spare, at least `POOL_MIN`
POOL_MIN = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    name: str
    chips: int
    failures_per_week: float
    early_per_week: float = 0.0
    early_weeks: float = 0.0

    @property
    def nodes(self) -> int:
        """Return the size of the gang."""
        return math.ceil(self.chips / GPUS)

    @property
    def pool(self) -> int:
        """Return how many more nodes there are."""
        return max(POOL_MIN, math.ceil(POOL * self.nodes))


ROWS = (
    Row("A-stable", 2000, 3.0),
    Row("A-early", 2000, 20.0),
    Row("B-stable", 300, 0.2),
    Row("B-early", 300, 0.2),
    Row("C-300-stable", 300, 3.0),
    Row("C-100-stable", 100, 3.0),
    Row("C-100-early", 100, 30.0),
    Row("D", 300, 2.0),
)
#: An unlabelled year of A: 12 weeks early, then stable; the policy has to find that itself.
TWO_PHASES = Row("A-two-phases", 2000, 3.0, early_per_week=20.0, early_weeks=12.0)


def plan_of(row: Row, days: float) -> Plan:
    """Return a row as a world: one cohort of one cluster, one gang that trains for ever."""
    cohort = CohortPlan(
        name="1",
        nodes=row.nodes + row.pool,
        rate=row.failures_per_week / row.nodes,
        early_rate=row.early_per_week / row.nodes,
        early_weeks=row.early_weeks,
    )
    cluster = ClusterPlan(row.name.split("-")[0].lower(), row.name[0], (cohort,), gpus=GPUS)
    return Plan((cluster,), (JobPlan("train", row.nodes),), days=days)


def constants() -> dict[str, float]:
    """Return what is assumed in every row."""
    plan = plan_of(ROWS[0], 1.0)
    job, times, repair = plan.jobs[0], plan.times, plan.repair
    return {
        "gpus_per_node": GPUS,
        "detect_s": times.detect,
        "recover_with_standby_s": times.recover,
        "recover_cold_s": times.recover + times.cold,
        "persist_lag_s": job.lag,
        "checkpoint_stall_s": job.stall,
        "repair_easy_share": repair.easy_share,
        "repair_easy_median_s": repair.easy,
        "repair_hard_median_s": repair.hard,
        "repair_p95_over_median": repair.spread,
        "pool_share_of_gang": POOL,
        "pool_min_nodes": POOL_MIN,
        "baseline_restart_s": 1800.0,
        "baseline_interval_s": 3600.0,
        "baseline_stall_s": 60.0,
    }
