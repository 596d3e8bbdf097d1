"""Simulated worlds: the daemon's own loop over machines that fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.nodes import JobName, NodeState
from orchestrator.core.policies import Policy
from orchestrator.simulation.engine import Simulation
from orchestrator.simulation.plan import (
    ClusterPlan,
    CohortPlan,
    JobPlan,
    Kind,
    Plan,
    ProbePlan,
    Strike,
)
from orchestrator.simulation.report import world_report
from orchestrator.simulation.scenes import play
from orchestrator.simulation.story import costliest

HOUR = 3_600.0
MIX = {Kind.GPU: 0.4, Kind.CRASH: 0.3, Kind.HANG: 0.1, Kind.LINK: 0.1, Kind.DEGRADED: 0.1}


def world(*strikes: Strike, nodes: int = 6, gang: int = 4, days: float = 0.5) -> Plan:
    cluster = ClusterPlan("a", "acme", (CohortPlan("one", nodes, rate=0.0),))
    return Plan((cluster,), (JobPlan("train", gang),), days=days, strikes=strikes)


def chances(days: float = 1.0) -> Plan:
    cohort = CohortPlan("one", 8, rate=9.0)
    return Plan((ClusterPlan("a", "acme", (cohort,)),), (JobPlan("train", 4),), days=days, mix=MIX)


def books(sim: Simulation) -> tuple[int, float]:
    mine = sim.world.books[JobName("train")]
    return mine.stops, mine.lost


@pytest.mark.parametrize("gangs", ["brief", "full"])
def test_a_quiet_world_trains_and_costs_nothing(gangs: str) -> None:
    sim = play(replace(world(), gangs=gangs), Policy(), seed=1)
    assert books(sim) == (0, 0.0)
    assert sim.evictions == []
    assert sim.witness.killed == []
    assert sim.controller.ticks < 200  # nothing is asked again that would answer the same


@pytest.mark.parametrize("gangs", ["brief", "full"])
@pytest.mark.parametrize("kind", [Kind.GPU, Kind.CRASH, Kind.HANG, Kind.LINK])
def test_each_fault_is_survived_and_no_healthy_node_pays(gangs: str, kind: Kind) -> None:
    fault = Strike(at=3 * HOUR, kind=kind, target="a-001", lasts=600.0)
    sim = play(replace(world(fault), gangs=gangs), Policy(), seed=3)
    stops, lost = books(sim)
    assert stops >= 1
    assert lost < 1_300.0
    assert all(one.node == "a-001" and one.rightly for one in sim.evictions)
    assert sim.witness.killed == []
    assert sim.world.gangs[max(sim.world.gangs)].training
    assert sim.outages.worst is not None
    assert sim.outages.worst.seconds < 120.0


@pytest.mark.parametrize("gangs", ["brief", "full"])
def test_a_bad_link_that_nothing_names_is_found_by_tests_between_nodes(gangs: str) -> None:
    fault = Strike(at=3 * HOUR, kind=Kind.CABLE, target="a-002")
    sim = play(replace(world(fault), gangs=gangs), Policy(), seed=3)
    assert [one.node for one in sim.evictions][:1] == ["a-002"]
    assert all(one.rightly for one in sim.evictions)
    assert "localise named on host" in sim.evictions[0].reason
    assert sim.witness.killed == []
    assert sim.world.gangs[max(sim.world.gangs)].training


def test_tests_between_nodes_that_lie_make_no_false_eviction() -> None:
    hangs = tuple(Strike(at=n * HOUR, kind=Kind.HANG, target="a-001") for n in range(2, 12))
    plan = replace(world(*hangs), probes=ProbePlan(pair_lies=0.05))
    sim = play(plan, Policy(), seed=4)
    assert len(sim.controller.fleet.beliefs.links) >= 9
    assert sim.evictions == []


def test_a_broken_gpu_is_evicted_repaired_and_trusted_again() -> None:
    fault = Strike(at=3 * HOUR, kind=Kind.GPU, target="a-001")
    sim = Simulation(world(fault, days=6.0), Policy(), seed=2)
    sim.begin()
    sim.run(3 * HOUR + 60.0)
    assert [one.node for one in sim.evictions] == ["a-001"]
    sim.run(6 * 24 * HOUR)
    states = {node: sim.states[node] for node in sim.states if node == "a-001"}
    assert set(states.values()) <= {NodeState.SPARE, NodeState.STANDBY, NodeState.PROBATION}
    assert not sim.world.machines[next(iter(states))].faults


def test_equal_seeds_give_equal_worlds() -> None:
    one, two = (world_report(play(chances(), Policy(), seed=5)) for _ in range(2))
    assert one == two
    assert one["failures"] >= 3
    assert world_report(play(chances(), Policy(), seed=6)) != one


def test_gangs_in_brief_and_in_full_come_to_the_same() -> None:
    found = [
        world_report(play(replace(chances(), gangs=gangs), Policy(), seed=7))
        for gangs in ("brief", "full")
    ]
    assert found[0]["failures"] == found[1]["failures"]
    assert abs(found[0]["evictions"] - found[1]["evictions"]) <= 2
    shares = [one["jobs"][0]["ettr"] for one in found]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    assert all(one["healthy_jobs_killed"] == 0 for one in found)
    assert all(one["false_evictions"] == 0 for one in found)


def test_the_costliest_incident_is_told_from_fault_to_training() -> None:
    fault = Strike(at=3 * HOUR, kind=Kind.GPU, target="a-002")
    lines = costliest(play(world(fault), Policy(), seed=1))
    text = "\n".join(lines)
    assert lines[0].startswith("train stood for")
    assert "world: gpu on a-002" in text
    assert "evicted a-002 from train: XID 79" in text
    assert costliest(play(world(), Policy(), seed=1)) == []


@pytest.mark.parametrize("cut", [("a-001",), ("a-001", "a-002", "a-003", "a-004", "a-005")])
def test_a_partition_between_us_and_a_gang_stops_nothing(cut: tuple[str, ...]) -> None:
    """One member is out of reach, and the others hear it; or all are, and the register grows."""
    away = Strike(3 * HOUR, Kind.PARTITION, "", lasts=3 * HOUR, how="controller", nodes=cut)
    other = ClusterPlan("b", "bolt", (CohortPlan("one", 6, rate=0.0),))
    plan = world(away, gang=4)
    sim = play(replace(plan, clusters=(*plan.clusters, other), gangs="full"), Policy(), seed=1)
    assert books(sim) == (0, 0.0)
    assert sim.evictions == []
    assert sim.witness.killed == []
