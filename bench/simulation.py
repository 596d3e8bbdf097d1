"""How fast the simulator is: `python -m bench.simulation [--days 364] [-o json]`.

625 nodes (5,000 GPUs) in six clusters with six jobs fail as row A-stable of Table 4 does per node,
probes each minute. Its peer is the bare agenda: as many events that do nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

from orchestrator.core.policies import Policy
from orchestrator.simulation.agenda import Agenda
from orchestrator.simulation.engine import Simulation
from orchestrator.simulation.plan import ClusterPlan, CohortPlan, JobPlan, Plan
from orchestrator.simulation.report import world_report
from orchestrator.simulation.scenes import play

SIZES = (105, 104, 104, 104, 104, 104)  #: nodes per cluster: 625
GANG = 96
PER_NODE_WEEK = 3 / 250  #: A-stable: 3 failures a week on 2,000 chips


def fleet(days: float) -> Plan:
    """Return the world that is measured."""
    clusters = tuple(
        ClusterPlan(f"c{n}", f"p{n}", (CohortPlan("one", size, rate=PER_NODE_WEEK),))
        for n, size in enumerate(SIZES, 1)
    )
    jobs = tuple(JobPlan(f"job{n}", GANG, clusters=(f"c{n}",)) for n in range(1, 7))
    return Plan(clusters, jobs, days=days)


@dataclass(frozen=True)
class Result:
    """One simulated stretch."""

    days: float
    nodes: int
    failures: int
    events: int
    seconds: float  #: of one core
    bare_seconds: float  #: the agenda alone, with as many events
    ettr_min: float  #: the worst job's

    @property
    def year_seconds(self) -> float:
        """Seconds of one core for 364 days at this pace."""
        return self.seconds * 364 / self.days


def measure(days: float, seed: int = 1) -> Result:
    """Play it once."""
    began = time.process_time()
    sim: Simulation = play(fleet(days), Policy(), seed)
    took = time.process_time() - began
    report, events = world_report(sim), sim.world.agenda.happened
    worst = min(job["ettr"] for job in report["jobs"])
    return Result(days, sum(SIZES), report["failures"], events, took, bare(events), worst)


def bare(events: int) -> float:
    """Return the seconds that as many events cost that do nothing."""
    agenda, began = Agenda(), time.process_time()
    for number in range(events):
        agenda.at(float(number * 7919 % events), int)
    agenda.run(float(events))
    return time.process_time() - began


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=364.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    wanted = parser.parse_args(words)
    found = measure(wanted.days, wanted.seed)
    if wanted.output == "json":
        print(json.dumps({**found.__dict__, "year_seconds": round(found.year_seconds, 1)}))
        return
    print(
        f"{found.nodes} nodes, {found.days:.0f} days, {found.failures} failures, "
        f"{found.events} events: {found.seconds:.1f} s of one core "
        f"({found.year_seconds:.1f} s a year; the bare agenda {found.bare_seconds:.1f} s); "
        f"worst ETTR {found.ettr_min:.5f}"
    )


if __name__ == "__main__":
    main()
