"""Nodes that nobody uses: enlisted, burnt in, kept back, repaired."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import ProviderFailed
from orchestrator.core.reconcile import reconcile
from orchestrator.core.verdicts import FaultClass
from tests.core.test_stories import TWO, running, started
from tests.core.world import QUICK, World


def test_trust_needs_time_and_a_probe() -> None:
    world = World({"a": 1})
    world.run(3)
    assert world.states() == {"a-1": "burn-in"}
    world.run(1)
    assert world.states() == {"a-1": "spare"}


def test_a_broken_delivery_goes_from_burn_in_to_quarantine_and_is_rebooted() -> None:
    world = World({"a": 1})
    world.fault("a-1")
    world.run(1)
    assert world.states() == {"a-1": "repairing"}
    assert world.told("put a-1 in quarantine: XID 79")
    world.until(lambda w: w.states() == {"a-1": "spare"})


def test_a_suspect_stays_in_burn_in() -> None:
    world = World({"a": 1})
    world.fault("a-1", check="net", code="", fault=FaultClass.NETWORK)
    world.run(20)
    assert world.states() == {"a-1": "burn-in"}


def test_a_spare_that_breaks_is_quarantined() -> None:
    world = World({"a": 1}, can=())
    world.run(4)
    world.fault("a-1")
    world.run(20)
    assert world.states() == {"a-1": "quarantined"}


def test_an_empty_list_and_a_failing_provider_end_nothing() -> None:
    world = started({"a": 3})
    for sim in world.nodes.values():
        sim.cluster = "gone"
    before = world.steps("train")
    for _ in range(12):
        world.see(ProviderFailed(world.fleet.clusters[0].name, world.fleet.now, "503"))
        world.tick()
    assert world.steps("train") > before + 10
    assert set(world.states().values()) == {"in-use", "standby"}


def test_a_spare_that_its_provider_lists_no_more_gets_no_seat() -> None:
    world = World({"a": 2})
    world.run(5)
    world.nodes["a-2"].cluster = "gone"
    world.run(1)
    assert world.states() == {"a-1": "spare", "a-2": "spare"}
    world.submit("train", TWO)
    world.run(10)
    assert world.job("train") == "pending"


def test_a_provider_that_fails_for_long_is_told_of() -> None:
    world = World({"a": 1})
    world.run(5)
    cluster = world.fleet.clusters[0].name
    held = world.fleet.beliefs.clusters[cluster]
    failing = replace(held, failing_since=world.fleet.now, error="503")
    beliefs = replace(world.fleet.beliefs, clusters={cluster: failing})
    fleet = replace(world.fleet, beliefs=beliefs)
    plan = reconcile(fleet, QUICK)
    assert plan.look_again_at is not None
    later = replace(fleet, now=fleet.now + QUICK.silence_max)
    assert "provider-api" in str(reconcile(later, QUICK).decisions)


def test_a_node_out_of_reach_is_told_of_and_never_taken_for_dead() -> None:
    world = started({"a": 3})
    world.nodes["a-1"].reachable = False
    for name in ("a-2", "a-3"):
        world.nodes[name].reachable = False
    world.run(7)
    assert ("node-unreachable", "a-1") not in world.pages()
    world.run(5)
    assert ("node-unreachable", "a-1") in world.pages()
    assert set(world.states().values()) == {"in-use", "standby"}
    for sim in world.nodes.values():
        sim.reachable = True
    world.run(2)
    assert world.pages() == set()


def test_a_day_has_so_many_reboots() -> None:
    world = World({"a": 1}, replace(QUICK, reboots_per_day=2))
    world.run(5)
    world.stop_power("a-1", for_good=True)
    world.until(lambda w: ("repair-limit", "a-1") in w.pages())
    assert sum("asked the provider to reboot" in line for line in world.story) == 2
    assert world.states() == {"a-1": "quarantined"}
    assert world.told("2 reboots within a day did not bring it back")
    world.nodes["a-1"].on, world.nodes["a-1"].boot = True, 9
    world.until(lambda w: w.states() == {"a-1": "spare"})


def test_without_repair_a_node_that_is_off_waits_in_quarantine() -> None:
    world = World({"a": 1}, replace(QUICK, repair=False))
    world.run(5)
    world.stop_power("a-1")
    world.run(5)
    assert world.states() == {"a-1": "quarantined"}
    assert ("node-lost", "a-1") in world.pages()
    world.nodes["a-1"].on = True
    world.until(lambda w: w.states() == {"a-1": "spare"})


def test_a_node_that_loses_power_in_burn_in_is_started_again() -> None:
    world = World({"a": 1})
    world.run(2)
    world.stop_power("a-1")
    world.run(1)
    assert world.states() == {"a-1": "repairing"}
    world.until(lambda w: w.states() == {"a-1": "spare"})


def test_an_unreachable_member_is_replaced_only_because_its_gang_misses_it() -> None:
    world = started({"a": 4})
    world.nodes["a-1"].reachable = False
    world.until(lambda w: w.states()["a-1"] in ("quarantined", "repairing"))
    assert world.told("and its gang misses it")
    world.until(lambda w: set(w.members("train")) == {"a-2", "a-3"} and running(w))
    assert NodeName("a-1") not in world.granted("train")


def test_a_slow_reboot_is_waited_for_and_not_repeated() -> None:
    world = World({"a": 1})
    world.run(5)
    world.nodes["a-1"].slow = True
    world.stop_power("a-1")
    world.run(60)
    assert sum("asked the provider to reboot" in line for line in world.story) == 1
    assert world.states() == {"a-1": "repairing"}
    world.nodes["a-1"].on, world.nodes["a-1"].boot = True, 2
    world.until(lambda w: w.states() == {"a-1": "spare"})


def test_without_known_outcomes_a_machine_still_off_is_rebooted_again() -> None:
    world = World({"a": 1})
    world.run(5)
    world.stop_power("a-1", for_good=True)
    times: list[int] = []
    for second in range(60):
        world.fleet = replace(world.fleet, settled=())
        world.run(1)
        if sum("asked the provider to reboot" in line for line in world.story) > len(times):
            times.append(second)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(pauses) >= 2
    assert all(later > earlier for earlier, later in pairwise(pauses))  # asked ever less often
