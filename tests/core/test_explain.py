"""Every decision is one plain sentence with its evidence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.decisions import (
    Decision,
    MoveAttempt,
    MoveNode,
    Repair,
    RepairStep,
    SetCordon,
    StopAgent,
    SweepNode,
)
from orchestrator.core.explain import explain, explain_fleet, why_not
from orchestrator.core.jobs import AttemptState, JobSpec, Outcome
from orchestrator.core.nodes import Cordon, JobName, NodeName, NodeState
from orchestrator.core.observations import OrderKind
from tests.core.test_stories import started
from tests.core.world import BEGIN, QUICK, World

N, JOB = NodeName("a-1"), JobName("train")


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (
            MoveAttempt(JOB, 1, AttemptState.CLOSING, "every rank ended well", Outcome.SUCCEEDED),
            "attempt 1 of train is closing (succeeded): every rank ended well",
        ),
        (
            SetCordon(N, Cordon("operator:ann", "fan", BEGIN), "cordoned by ann: fan"),
            "cordoned a-1: cordoned by ann: fan",
        ),
        (SetCordon(N, None, "ann"), "lifted the cordon of a-1: ann"),
        (Repair(N, RepairStep.REBOOT, 0, "off"), "asked the provider to reboot a-1: off"),
        (StopAgent(N, JOB, 1, "done"), "stopped train, attempt 1, on a-1: done"),
        (SweepNode(N, JOB, 1, "silent"), "swept a-1 clean of train, attempt 1: silent"),
        (
            MoveNode(N, NodeState.IN_USE, NodeState.DRAINING, "drained by ann"),
            "a-1 goes from in-use to draining: drained by ann",
        ),
    ],
)
def test_a_decision_is_one_plain_sentence(decision: Decision, sentence: str) -> None:
    assert explain(decision) == sentence


def test_every_decision_of_a_long_story_is_explained() -> None:
    world = started({"a": 3, "b": 3})
    world.fault("a-1")
    world.order(OrderKind.DRAIN, "a-2")
    world.run(30)
    assert all(line and "\n" not in line for line in world.story)


def test_the_fleet_says_what_everything_waits_for() -> None:
    world = World({"a": 3})
    world.submit("huge", JobSpec(nodes_min=9, nodes_max=9))
    world.run(2)
    said = explain_fleet(world.fleet, QUICK)
    assert "huge waits for 9 fit nodes (a has 0)" in said
    assert "a-1 is burn-in: sim lists it" in said
    world.silent_registers.add("train")
    world.submit("train", JobSpec(nodes_min=2, nodes_max=2, register="/r"))
    world.run(6)
    waits = "train, attempt 1 on a, is opening: its fence is not in the register yet"
    assert waits in explain_fleet(world.fleet, QUICK)
    world.silent_registers.clear()
    world.run(8)
    assert "train, attempt 1 on a, runs on a-1, a-2, a-3" in explain_fleet(world.fleet, QUICK)
    world.stop_power("a-1", for_good=True)
    world.stop_power("a-2", for_good=True)
    world.run(2)
    assert "train, attempt 1 on a, waits: train needs 2 nodes, a has 1" in explain_fleet(
        world.fleet, QUICK
    )
    world.order(OrderKind.STOP, "train")
    world.run(10)
    assert "train is stopped: stopped by ann" in explain_fleet(world.fleet, QUICK)


def reason(world: World, node: str = "a-4", job: str = "train") -> str | None:
    return why_not(world.fleet, QUICK, job, node)


def test_why_a_node_gets_no_seat_has_an_answer() -> None:
    world = started({"a": 4})
    assert reason(world) is None
    assert reason(world, "a-1") == "is in-use"
    world.order(OrderKind.CORDON, "a-4")
    world.run(1)
    assert reason(world) == "cordoned by operator:ann: "
    world.order(OrderKind.UNCORDON, "a-4")
    world.run(1)
    world.nodes["a-4"].reachable = False
    world.run(1)
    assert reason(world) == "cannot be reached: no route to host"
    world.nodes["a-4"].reachable = True
    world.nodes["a-4"].cluster = "elsewhere"
    world.run(1)
    assert reason(world) == "its provider lists others, but not this one"
    world.nodes["a-4"].cluster = "a"
    world.fault("a-4", check="net", code="")
    world.run(1)
    assert reason(world) is not None
    world.nodes["a-4"].findings.clear()


def test_a_verdict_that_is_too_old_seats_nobody() -> None:
    world = started({"a": 4})
    later = replace(world.fleet, now=world.fleet.now + timedelta(minutes=2))
    assert why_not(later, QUICK, "train", "a-4") == "was not probed lately"
