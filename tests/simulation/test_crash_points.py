"""The controller is killed at every single write of a scripted incident, and started again.

Whatever write was its last one, before or after it reached the ledger, the world comes to the same
end: the same nodes serve, the same job trains on the same cluster, nothing was done twice.
"""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.nodes import JobName
from orchestrator.core.policies import Policy
from orchestrator.runtime.lineage import Fence
from orchestrator.simulation.engine import Simulation
from orchestrator.simulation.plan import (
    ClusterPlan,
    CohortPlan,
    JobPlan,
    Kind,
    Plan,
    RepairPlan,
    Strike,
)

HOUR, MINUTE = 3_600.0, 60.0
RESTART = 7.0  #: seconds until a dead controller is started again
END = 4.5 * HOUR
STRIDE = 6  #: here; `make simulate-soak` leaves no write out


def incident() -> Plan:
    """A GPU breaks, its node is swapped and repaired; then a cluster is lost and the job moves."""
    clusters = (
        ClusterPlan("a", "acme", (CohortPlan("one", 4, rate=0.0),)),
        ClusterPlan("b", "bolt", (CohortPlan("one", 3, rate=0.0),)),
    )
    jobs = (JobPlan("train", 2, clusters=("a", "b"), interval=120.0),)
    repair = RepairPlan(easy=10 * MINUTE, hard=10 * MINUTE, spread=1.0001)
    strikes = (
        Strike(at=1 * HOUR, kind=Kind.GPU, target="a-001", lasts=600.0),
        Strike(at=2.5 * HOUR, kind=Kind.BLACKOUT, target="a", lasts=HOUR),
    )
    return Plan(clusters, jobs, days=END / 86_400, strikes=strikes, repair=repair, gangs="full")


def play(write: int = 0, *, before: bool = False) -> Simulation:
    """Play the incident; the controller's write of this number is its last one."""
    sim = Simulation(incident(), Policy(), seed=1, strict=True)
    controller = sim.controller
    controller.ledger.die_at, controller.ledger.die_before = write, before

    def start_again() -> None:
        sim.world.agenda.after(RESTART, controller.start)

    controller.on_restart.append(start_again)
    sim.begin()
    sim.run(END)
    sim.end()
    sim.witness.read_registers()
    return sim


def end_of(sim: Simulation) -> dict[str, Any]:
    """What must not depend on when the controller died."""
    fleet = sim.controller.fleet
    newest = max(run for run in sim.world.gangs)
    return {
        "nodes": {name: node.state.value for name, node in sorted(fleet.nodes.items())},
        "trial": {name: node.trial_since is not None for name, node in sorted(fleet.nodes.items())},
        "steps": {n: [one.step for one in node.history.steps] for n, node in fleet.nodes.items()},
        "jobs": {name: job.state.value for name, job in fleet.jobs.items()},
        "attempts": [(one.number, one.cluster, one.state.value) for one in fleet.attempts],
        "seats": sorted(fleet.attempts[-1].grant.nodes if fleet.attempts[-1].grant else ()),
        "trains": (newest, sim.world.gangs[newest].training),
        "fences": [r.attempt for r in register(sim) if isinstance(r, Fence)],
        "evicted": [one.node for one in sim.evictions],
        "incidents": sorted((one.page.value, one.subject) for one in fleet.incidents),
        "intents": len(fleet.intents),
    }


def register(sim: Simulation) -> list[Any]:
    return list(sim.world.registers[JobName("train")].records)


@pytest.fixture(scope="module")
def undisturbed() -> Simulation:
    return play()


def test_the_incident_is_what_it_claims_to_be(undisturbed: Simulation) -> None:
    end = end_of(undisturbed)
    assert end["evicted"] == ["a-001"]
    assert end["steps"]["a-001"]
    assert end["fences"] == [1, 2]
    assert end["trains"] == ((JobName("train"), 2), True)
    assert end["attempts"][-1] == (2, "b", "open")
    assert end["intents"] == 0
    assert undisturbed.controller.ledger.writes > 50


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_write_may_be_the_last_one(undisturbed: Simulation, before: bool) -> None:
    check(undisturbed, before=before, stride=STRIDE)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_every_write_may_be_the_last_one(undisturbed: Simulation, before: bool) -> None:
    check(undisturbed, before=before, stride=1)


def check(undisturbed: Simulation, *, before: bool, stride: int) -> None:
    wanted = end_of(undisturbed)
    wrong = {}
    for write in range(1, undisturbed.controller.ledger.writes + 1, stride):
        sim = play(write, before=before)
        assert sim.controller.lives == 2, f"write {write} was never made"
        found = end_of(sim)
        if found != wanted:
            wrong[write] = {key: found[key] for key in found if found[key] != wanted[key]}
    assert not wrong
