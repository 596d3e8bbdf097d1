"""The repair ladder: which step, how often, for whom, and what is left to people."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.decisions import MoveNode, Repair, RepairStep
from orchestrator.core.history import LADDER
from orchestrator.core.nodes import NodeName, NodeState
from orchestrator.core.observations import OrderKind
from orchestrator.core.policies import Policy
from orchestrator.core.verdicts import FaultClass
from tests.core.test_stories import running, started
from tests.core.world import QUICK, World

ALL = tuple(step.value for step in LADDER)
A1 = NodeName("a-1")


def alone(
    can: tuple[str, ...] = ALL, policy: Policy = QUICK, needs: RepairStep = RepairStep.RESET
) -> World:
    world = World({"a": 1}, policy, can=can).run(5)
    world.nodes["a-1"].needs = needs
    return world


def steps(world: World) -> list[str]:
    return [one.step.value for one in world.done if isinstance(one, Repair)]


@pytest.mark.parametrize(
    ("remedy", "fault", "first"),
    [
        ("reset", FaultClass.HARDWARE, "reset"),
        ("reboot", FaultClass.HARDWARE, "reboot"),
        ("replace", FaultClass.HARDWARE, "replace"),
        ("restart-app", FaultClass.HARDWARE, "reboot"),
        ("", FaultClass.HARDWARE, "reboot"),
    ],
)
def test_the_first_rung_is_the_finding_s_own_remedy(
    remedy: str, fault: FaultClass, first: str
) -> None:
    world = alone(needs=RepairStep.RESET)
    world.fault("a-1", remedy=remedy, fault=fault)
    world.until(lambda w: bool(steps(w)))
    assert steps(world) == [first]
    world.until(lambda w: w.states() == {"a-1": "spare"})
    assert steps(world) == [first]


def test_a_fault_that_comes_back_climbs_one_rung_at_a_time_to_another_machine() -> None:
    world = alone(needs=RepairStep.REPLACE)
    world.fault("a-1", remedy="reset").run(1)
    world.until(lambda w: w.states() == {"a-1": "spare"}, limit=200)
    assert steps(world) == list(ALL)
    node = world.fleet.nodes[A1]
    assert node.incarnation == 2
    assert node.history.troubles == ()  # of the new machine
    assert [one.step.value for one in node.former[0].history.steps] == list(ALL)
    assert world.told("i-a-1+ instead of i-a-1")


def test_after_the_window_the_ladder_begins_at_its_first_rung_again() -> None:
    world = alone(policy=replace(QUICK, relapse_window=timedelta(seconds=20)))
    for _ in range(2):
        world.fault("a-1", remedy="reset")
        world.until(lambda w: w.states() == {"a-1": "repairing"})
        world.until(lambda w: w.states() == {"a-1": "spare"})
        world.run(20)
    assert steps(world) == ["reset", "reset"]


def test_what_the_provider_cannot_do_is_done_one_rung_lower_and_then_paged() -> None:
    world = alone(can=("reboot",), needs=RepairStep.REPLACE)
    world.fault("a-1")
    world.until(lambda w: ("repair-needed", "a-1") in w.pages(), limit=200)
    assert steps(world) == ["reboot"] * QUICK.rung_tries
    assert world.states() == {"a-1": "quarantined"}
    assert world.told("it calls for a reprovision, which sim cannot do")
    world.run(100)
    assert steps(world) == ["reboot"] * QUICK.rung_tries  # nothing more happens by itself
    world.nodes["a-1"].findings = []
    world.order(OrderKind.RELEASE, "a-1")
    world.until(lambda w: w.states() == {"a-1": "spare"})
    assert world.pages() == set()


def test_a_provider_that_can_do_nothing_is_paged_for_at_once() -> None:
    world = alone(can=())
    world.fault("a-1")
    world.run(2)
    assert ("repair-needed", "a-1") in world.pages()
    assert steps(world) == []


def test_an_operator_who_wants_no_repairs_gets_none_and_no_page_for_them() -> None:
    world = alone(policy=replace(QUICK, repair=False))
    world.fault("a-1")
    world.run(10)
    assert world.states() == {"a-1": "quarantined"}
    assert steps(world) == []
    assert {page for page, _ in world.pages()} == {"hardware-fault"}


def test_a_step_that_brings_nothing_back_is_given_up_for_the_next_one() -> None:
    world = alone(can=("reboot", "reprovision"))
    world.nodes["a-1"].starts_again = False
    world.stop_power("a-1", for_good=True)
    world.until(lambda w: "reprovision" in steps(w), limit=200)
    assert steps(world) == ["reboot"] * QUICK.reboots_per_day + ["reprovision"]


def test_an_api_that_is_down_does_not_use_up_the_ladder() -> None:
    world = alone(policy=QUICK, needs=RepairStep.REBOOT)
    world.refuses = True
    world.fault("a-1", remedy="replace")
    world.until(lambda w: len(steps(w)) >= 4, limit=400)
    assert world.states() == {"a-1": "repairing"}
    assert set(steps(world)) == {"replace"}
    world.refuses = False
    world.until(lambda w: w.states() == {"a-1": "spare"}, limit=400)


def test_an_api_that_stays_down_is_given_up_and_told_of() -> None:
    world = alone(can=("reboot",))
    world.refuses = True
    world.fault("a-1", remedy="reboot")
    for _ in range(12):
        world.run(3)
        world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(hours=1))
    assert ("repair-limit", "a-1") in world.pages()
    assert world.told("0 reboots within a day did not bring it back, and its provider refused 8")


@pytest.mark.parametrize(
    ("step", "limit"),
    [
        ("reset", "resets_per_day"),
        ("reboot", "reboots_per_day"),
        ("reprovision", "reprovisions_per_day"),
        ("replace", "replaces_per_day"),
    ],
)
def test_each_rung_has_its_tries_a_day(step: str, limit: str) -> None:
    policy = replace(QUICK, **{limit: 2})  # type: ignore[arg-type]
    world = alone(can=(step,), policy=replace(policy, rung_tries=100))
    if step == "reset":  # it is accepted and cures nothing
        world.nodes["a-1"].needs = RepairStep.REBOOT
    world.nodes["a-1"].starts_again = False
    world.fault("a-1", remedy=step)
    world.until(lambda w: ("repair-limit", "a-1") in w.pages(), limit=300)
    assert steps(world) == [step, step]
    world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(days=1))
    world.until(lambda w: len(steps(w)) > 2)


def test_a_cordon_ends_the_tries_of_a_repair_and_its_end_lets_them_go_on() -> None:
    world = alone(can=("reboot",), needs=RepairStep.REBOOT)
    world.refuses = True
    world.fault("a-1", remedy="reboot")
    world.until(lambda w: len(steps(w)) == 1)
    world.order(OrderKind.CORDON, "a-1")
    world.until(lambda w: w.states() == {"a-1": "quarantined"}, limit=200)
    tried = len(steps(world))
    assert world.told("its repair waits for that")
    world.run(200)
    assert len(steps(world)) == tried
    world.refuses = False
    world.order(OrderKind.UNCORDON, "a-1")
    world.until(lambda w: w.states() == {"a-1": "spare"}, limit=400)


def test_the_whole_fleet_has_its_repairs_an_hour_and_one_always() -> None:
    for most, allowed in ((0, 1), (2, 2)):
        policy = replace(QUICK, fleet_repairs_per_hour=most, fleet_repairs_share=0.1)
        world = World({"a": 4, "b": 3}, policy).run(5)
        for name in world.nodes:
            world.stop_power(name)
        world.run(30)
        assert len(steps(world)) == allowed
        assert {("repair-limit", "a"), ("repair-limit", "b")} & world.pages()
        world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(hours=1))
        world.run(5)
        assert len(steps(world)) == 2 * allowed


def test_a_large_fleet_may_repair_a_share_of_itself() -> None:
    policy = replace(QUICK, fleet_repairs_per_hour=1, fleet_repairs_share=0.5)
    world = World({"a": 8}, policy).run(5)
    for name in world.nodes:
        world.stop_power(name)
    world.run(30)
    assert len(steps(world)) == 4


def test_nothing_is_repaired_under_a_running_gang_nor_outside_quarantine() -> None:
    world = started({"a": 4})
    world.fault("a-1")
    world.until(lambda w: bool(steps(w)))
    # the world itself asserts that each step finds its node in repair
    assert world.nodes["a-1"].agents == {}
    assert ("train", 1) not in world.nodes["a-1"].agents
    moved = [one for one in world.done if isinstance(one, MoveNode) and one.node == "a-1"]
    assert [one.end for one in moved][-2:] == [NodeState.QUARANTINED, NodeState.REPAIRING]


def test_everything_that_was_repaired_passes_burn_in_before_it_serves() -> None:
    world = alone(needs=RepairStep.REPLACE)
    world.fault("a-1", remedy="reset").run(1)
    world.until(lambda w: w.states() == {"a-1": "spare"}, limit=200)
    moves = [one for one in world.done if isinstance(one, MoveNode)]
    assert {one.start for one in moves if one.end is NodeState.SPARE} == {NodeState.BURN_IN}


def test_the_history_says_what_was_wrong_and_what_was_done() -> None:
    world = alone()
    world.fault("a-1", serial="gpu:7", remedy="reboot")
    world.until(lambda w: w.states() == {"a-1": "repairing"})
    world.until(lambda w: w.states() == {"a-1": "spare"})
    history = world.fleet.nodes[A1].history
    assert [(one.fault, one.serial) for one in history.troubles] == [("xid:79", "gpu:7")]
    assert [(one.step, one.fault) for one in history.steps] == [(RepairStep.REBOOT, "xid:79")]


def test_a_gang_s_lost_member_is_no_hardware_trouble() -> None:
    world = started({"a": 4})
    world.nodes["a-1"].reachable = False
    world.until(lambda w: w.states()["a-1"] in ("quarantined", "repairing"))
    world.until(running)
    assert [one.fault for one in world.fleet.nodes[A1].history.troubles] == ["unseen"]
