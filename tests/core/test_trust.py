"""Probation: how long it is, what ends it, and that a seat neither wins nor loses it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import exp

import pytest

from orchestrator.core.history import History, Trouble
from orchestrator.core.jobs import JobSpec
from orchestrator.core.look import Look
from orchestrator.core.nodes import ClusterName, NodeName
from orchestrator.core.observations import OrderKind
from orchestrator.core.outlook import calmness
from orchestrator.core.policies import Policy
from orchestrator.core.trust import doubt, lemon, trial_length
from tests.core.test_stories import TWO, running
from tests.core.world import QUICK, World

#: A delivered node is doubted with 1 in 10: ln(1/9) - ln(.02/.98) = 1.695 relapse means.
STRICT = replace(QUICK, doubt_max=0.02, relapse_mean=timedelta(seconds=10))
A1 = NodeName("a-1")


def look(world: World, policy: Policy = STRICT) -> Look:
    return Look(world.fleet, policy)


def with_troubles(world: World, *faults: str, node: NodeName = A1) -> World:
    troubles = tuple(Trouble(world.fleet.now, fault) for fault in faults)
    known = replace(world.fleet.nodes[node], history=History(troubles))
    world.fleet = replace(world.fleet, nodes={**world.fleet.nodes, node: known})
    return world


def test_probation_lasts_until_the_doubt_is_small_enough() -> None:
    world = World({"a": 1}, STRICT).run(4)
    assert world.states() == {"a-1": "probation"}
    node = world.fleet.nodes[A1]
    seconds = trial_length(look(world), node).total_seconds()
    assert seconds == pytest.approx(16.95, abs=0.01)
    odds = doubt(look(world), node) / (1 - doubt(look(world), node)) * exp(-seconds / 10)
    assert odds / (1 + odds) == pytest.approx(0.02)
    world.run(16)
    assert world.states() == {"a-1": "probation"}
    world.run(1)
    assert world.states() == {"a-1": "spare"}
    assert world.told("of service without a failure")


def test_each_trouble_of_its_machine_makes_it_longer() -> None:
    world = World({"a": 1}, STRICT).run(4)
    lengths = []
    for count in range(4):
        with_troubles(world, *["xid:79"] * count)
        lengths.append(trial_length(look(world), world.fleet.nodes[A1]))
    assert lengths == sorted(set(lengths))
    blameless = with_troubles(world, "unseen", "accused")
    assert trial_length(look(world), blameless.fleet.nodes[A1]) == lengths[0]


def test_no_probation_where_every_doubt_is_allowed() -> None:
    world = World({"a": 1}, replace(STRICT, doubt_max=1.0)).run(4)
    assert world.states() == {"a-1": "spare"}


def test_a_node_on_probation_is_seated_after_those_that_are_trusted() -> None:
    world = World({"a": 4}, STRICT).run(22)
    assert set(world.states().values()) == {"spare"}
    world.fault("a-1")
    world.until(lambda w: w.states()["a-1"] == "probation")
    world.submit("train", TWO)
    world.until(running)
    assert world.states() == {
        "a-1": "probation",
        "a-2": "in-use",
        "a-3": "in-use",
        "a-4": "standby",
    }


def test_a_node_on_probation_serves_where_nobody_else_is_left() -> None:
    world = World({"a": 3}, STRICT)
    world.submit("train", TWO)
    world.until(running)
    assert world.states() == {"a-1": "in-use", "a-2": "in-use", "a-3": "standby"}
    assert all(node.trial_since is not None for node in world.fleet.nodes.values())


def test_trust_is_earned_in_a_seat_as_well() -> None:
    world = World({"a": 3}, STRICT)
    world.submit("train", TWO)
    world.until(running)
    world.run(20)
    assert world.states() == {"a-1": "in-use", "a-2": "in-use", "a-3": "standby"}
    assert world.told("a-1 has earned its trust")
    world.order(OrderKind.STOP, "train")
    world.until(lambda w: w.job("train") == "stopped")
    assert set(world.states().values()) == {"spare"}


def test_leaving_a_seat_neither_wins_nor_loses_trust() -> None:
    world = World({"a": 2}, STRICT)
    world.submit("train", JobSpec(nodes_min=1, nodes_max=1, register="/r"))
    world.until(running)
    before = world.fleet.nodes[A1].trial_since
    assert before is not None
    world.order(OrderKind.STOP, "train")
    world.until(lambda w: w.job("train") == "stopped")
    assert set(world.states().values()) == {"probation"}
    assert world.fleet.nodes[A1].trial_since == before
    world.until(lambda w: w.states()["a-1"] == "spare", limit=20)


def test_a_new_boot_that_nobody_asked_for_begins_probation_anew() -> None:
    world = World({"a": 1}, STRICT).run(15)
    world.nodes["a-1"].boot += 1
    world.run(10)
    assert world.states() == {"a-1": "probation"}
    world.run(9)
    assert world.states() == {"a-1": "spare"}


def test_probation_does_not_end_unseen() -> None:
    world = World({"a": 1}, STRICT).run(10)
    world.nodes["a-1"].reachable = False
    world.run(60)
    assert world.states() == {"a-1": "probation"}
    world.nodes["a-1"].reachable = True
    world.run(1)
    assert world.states() == {"a-1": "spare"}


def test_the_only_standby_is_a_trusted_one_where_there_is_one() -> None:
    world = World({"a": 3}, STRICT).run(22)
    world.fault("a-1")
    world.stop_power("a-2", for_good=True)
    world.until(lambda w: w.states()["a-1"] == "probation")
    with_troubles(world, *["xid:79"] * 20)
    world.submit("train", JobSpec(nodes_min=1, nodes_max=1, register="/r"))
    world.until(running)
    assert (world.states()["a-3"], world.states()["a-1"]) == ("in-use", "standby")
    world.nodes["a-2"].on, world.nodes["a-2"].boot = True, 7
    world.until(lambda w: w.states()["a-2"] == "standby")
    assert world.told("a-1 goes from standby to draining: on probation, and a trusted spare")
    world.until(lambda w: w.states()["a-1"] == "probation")
    grants = sum(line.startswith("grant") for line in world.story)
    world.run(10)
    assert sum(line.startswith("grant") for line in world.story) == grants


def test_a_lemon_is_seated_last_of_all() -> None:
    world = World({"a": 4}).run(5)
    with_troubles(world, *["xid:79"] * QUICK.lemon_after)
    assert lemon(look(world, QUICK), world.fleet.nodes[A1]) is not None
    world.submit("train", TWO)
    world.until(running)
    assert world.states()["a-1"] == "spare"
    assert set(world.members("train")) == {"a-2", "a-3"}


def test_of_two_clusters_the_calmer_one_is_preferred() -> None:
    world = World({"a": 6, "b": 4}).run(5)
    assert calmness(look(world), ClusterName("a")) == calmness(look(world), ClusterName("b"))
    for name in ("a-1", "a-2", "a-3"):
        world.fault(name).until(lambda w, n=name: w.states()[n] == "repairing")  # type: ignore[misc]
        world.run(40)
    assert set(world.states().values()) == {"spare"}
    rates = [calmness(look(world), ClusterName(name)) for name in ("a", "b")]
    assert rates[0] > 2 * rates[1]
    world.submit("train", TWO)
    world.until(running)
    assert world.attempt("train").cluster == "b"
    world.submit("other", replace(TWO, clusters=(ClusterName("a"), ClusterName("b"))))
    world.until(lambda w: running(w, "other"))
    assert world.attempt("other").cluster == "a"  # a person's order of preference comes first


def test_old_troubles_are_forgiven() -> None:
    world = with_troubles(World({"a": 1}).run(5), *["xid:79"] * QUICK.lemon_after)
    later = replace(world.fleet, now=world.fleet.now + timedelta(days=28))
    assert lemon(Look(later, QUICK), later.nodes[A1]) is None
