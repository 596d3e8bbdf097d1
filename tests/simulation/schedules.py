"""Fault schedules drawn from a seed: small fleets in which much goes wrong at once.

A schedule has at least 2 clusters, 12 nodes, 2 jobs, 3 simulated days and 8 faults of at least 4
kinds, one of them of the control plane.
"""

from __future__ import annotations

from random import Random

from orchestrator.simulation.agenda import DAY, HOUR, MINUTE
from orchestrator.simulation.plan import (
    CONTROL_PLANE,
    ClusterPlan,
    CohortPlan,
    JobPlan,
    Kind,
    Plan,
    RepairPlan,
    Strike,
)

DAYS = 3.0
FIRST, LAST = 1.5 * HOUR, 2.4 * DAY  #: faults begin between; then everything must come right
FAULTS = (8, 12)
NODE_KINDS = (
    Kind.GPU,
    Kind.CRASH,
    Kind.HANG,
    Kind.LINK,
    Kind.CABLE,
    Kind.DEGRADED,
    Kind.PROBE,
)
SHARED_KINDS = (Kind.SHARED, Kind.CHECKPOINT, Kind.BLACKOUT)
API = ("5xx", "429", "timeout", "empty", "stale", "part")


def draw(seed: int) -> Plan:
    """Draw the schedule of a seed."""
    dice = Random(f"schedule {seed}")
    clusters = _clusters(dice)
    jobs = _jobs(dice, clusters)
    strikes = _strikes(dice, clusters, jobs)
    while len({strike.kind for strike in strikes}) < 4:
        strikes = _strikes(dice, clusters, jobs)
    return Plan(
        clusters,
        jobs,
        days=DAYS,
        repair=RepairPlan(easy=15 * MINUTE, hard=8 * HOUR, spread=2.0),
        strikes=strikes,
        gangs="full",
    )


def _clusters(dice: Random) -> tuple[ClusterPlan, ...]:
    sizes = dice.choice(((6, 6), (7, 6), (8, 5), (5, 5, 4)))
    return tuple(
        ClusterPlan(f"c{n}", f"provider{n}", (CohortPlan("one", size, rate=0.0),))
        for n, size in enumerate(sizes, 1)
    )


def _jobs(dice: Random, clusters: tuple[ClusterPlan, ...]) -> tuple[JobPlan, ...]:
    names = [cluster.name for cluster in clusters]
    jobs = []
    for name in ("one", "two"):
        nodes = dice.choice((2, 3))
        jobs.append(
            JobPlan(
                name,
                nodes=nodes,
                nodes_min=dice.choice((nodes, nodes, nodes - 1)),
                clusters=tuple(dice.sample(names, len(names))),
                submitted_at=dice.uniform(0.0, 0.5 * HOUR),
                interval=dice.choice((120.0, 600.0)),
                stop_after=dice.choice((None, None, 600.0)),
            )
        )
    return tuple(jobs)


def _strikes(
    dice: Random, clusters: tuple[ClusterPlan, ...], jobs: tuple[JobPlan, ...]
) -> tuple[Strike, ...]:
    count = dice.randint(*FAULTS)
    kinds = [dice.choice(sorted(CONTROL_PLANE))]
    while len(kinds) < count:
        group = dice.choices((NODE_KINDS, sorted(CONTROL_PLANE), SHARED_KINDS), (5, 4, 1))[0]
        kinds.append(dice.choice(group))
    moments = _moments(dice, count)
    strikes = [_strike(dice, at, kind, clusters, jobs) for at, kind in zip(moments, kinds)]  # noqa: B905
    return tuple(sorted(strikes, key=lambda one: one.at))


def _moments(dice: Random, count: int) -> list[float]:
    """Draw moments: some alone, some in the middle of what another one began."""
    moments: list[float] = []
    while len(moments) < count:
        if moments and dice.random() < 0.5:
            moments.append(min(LAST, dice.choice(moments) + dice.expovariate(1 / 60.0)))
        else:
            moments.append(dice.uniform(FIRST, LAST))
    return moments


def _strike(
    dice: Random,
    at: float,
    kind: Kind,
    clusters: tuple[ClusterPlan, ...],
    jobs: tuple[JobPlan, ...],
) -> Strike:
    cluster = dice.choice(clusters)
    nodes = [f"{cluster.name}-{n:03}" for n in range(1, cluster.nodes + 1)]
    job = dice.choice(jobs).name
    lasts = dice.choice((5.0, 40.0, 3 * MINUTE, 12 * MINUTE, 25 * MINUTE))
    some = tuple(dice.sample(nodes, dice.randint(1, max(1, len(nodes) // 2))))
    match kind:
        case Kind.API:
            return Strike(at, kind, cluster.name, lasts, dice.choice(API))
        case Kind.PARTITION:
            return Strike(at, kind, "", lasts, dice.choice(("controller", "register")), some)
        case Kind.REGISTER | Kind.CHECKPOINT:
            return Strike(at, kind, job, lasts)
        case Kind.REPORTS:
            return Strike(at, kind, "controller", lasts)
        case Kind.CLOCK:
            who = dice.choice(("controller", dice.choice(nodes)))
            skew = dice.choice((-30.0, -5.0, 5.0, 30.0)) * (1 if who == "controller" else 60)
            return Strike(at, kind, who, lasts, str(skew))
        case Kind.CONTROLLER:
            write = dice.choice((0, dice.randint(1, 60)))
            return Strike(
                at, kind, "controller", lasts, dice.choice(("before", "after")), number=write
            )
        case Kind.SHARED:
            how = dice.choice(("switch", "power", "split"))
            return Strike(at, kind, cluster.name, lasts, how, some)
        case Kind.BLACKOUT:
            return Strike(at, kind, cluster.name, lasts)
        case _:
            return Strike(at, kind, dice.choice(nodes), lasts)


def mix(plan: Plan) -> dict[str, int]:
    """Count the kinds of a schedule."""
    kinds = [strike.kind.value for strike in plan.strikes]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}
