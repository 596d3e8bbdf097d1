"""Accusations: one node named with certainty, a group named again and again, and the acquitted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.decisions import MoveNode, Repair
from orchestrator.core.jobs import JobSpec
from orchestrator.core.nodes import JobName, NodeName
from orchestrator.core.observations import Accused
from orchestrator.core.policies import Policy
from orchestrator.core.verdicts import Channel, FaultClass
from tests.core.test_stories import running
from tests.core.world import QUICK, World

#: Budgets that let a group of three go.
ROOMY = replace(QUICK, quarantine_share=0.5, cohort_share=0.5, fleet_share=0.5)


def gang(size: int, spares: int, policy: Policy = ROOMY) -> World:
    world = World({"a": size + spares}, policy)
    world.submit("train", JobSpec(nodes_min=size, nodes_max=size, register="/r"))
    return world.until(running).run(2)


def accuse(world: World, *nodes: str, posterior: float = 0.95) -> World:
    named = tuple(NodeName(node) for node in nodes)
    now, words = world.fleet.now, "the collective stops there"
    world.see(Accused(JobName("train"), 1, named, posterior, Channel.GANG, words, now))
    return world.run(2)


def evicted(world: World) -> list[str]:
    moves = [one for one in world.done if isinstance(one, MoveNode)]
    return [one.node for one in moves if one.counts == "eviction"]


def test_one_node_named_with_certainty_is_as_good_as_an_explicit_fault() -> None:
    world = accuse(gang(4, 2), "a-2", posterior=0.99)
    assert evicted(world) == ["a-2"]
    assert world.told("localise named on host (the collective stops there; posterior 0.99)")


@pytest.mark.parametrize("posterior", [0.2, 0.5, 0.98])
def test_one_node_named_with_less_stays_until_another_channel_agrees(posterior: float) -> None:
    world = accuse(gang(4, 2), "a-2", posterior=posterior)
    assert evicted(world) == []
    world.fault("a-2", check="net", code="", fault=FaultClass.NETWORK).run(2)
    assert evicted(world) == (["a-2"] if posterior >= 0.5 else [])


def test_nodes_named_with_certainty_are_no_suspects_of_a_shared_cause() -> None:
    world = gang(8, 4)
    for number in (1, 2, 3):
        accuse(world, f"a-{number}", posterior=0.995)
    assert sorted(evicted(world)) == ["a-1", "a-2", "a-3"]
    assert ("shared-cause", "train") not in world.pages()


def test_a_group_is_evidence_against_none_of_its_nodes() -> None:
    world = accuse(gang(4, 2), "a-2", "a-3", posterior=0.999)
    world.run(10)
    assert evicted(world) == []
    world.fault("a-2", check="net", code="", fault=FaultClass.NETWORK).run(2)
    assert evicted(world) == []


def test_a_group_named_again_and_again_leaves_as_a_whole_and_is_acquitted() -> None:
    world = gang(4, 4)
    for _ in range(2):
        accuse(world, "a-2", "a-3")
        assert evicted(world) == []
    accuse(world, "a-2", "a-3")
    assert evicted(world) == ["a-2", "a-3"]
    world.until(lambda w: w.states()["a-2"] == w.states()["a-3"] == "spare")
    assert world.told("a-2 goes from burn-in to spare: acquitted")
    assert not any(isinstance(one, Repair) for one in world.done)
    for name in ("a-2", "a-3"):
        (trouble,) = world.fleet.nodes[NodeName(name)].history.troubles
        assert (trouble.fault, trouble.acquitted_at is not None) == ("accused", True)
    acquittals = [one for one in world.done if isinstance(one, MoveNode) and one.acquitted]
    assert len(acquittals) == 2
    world.until(lambda w: running(w) and {"a-2", "a-3"}.isdisjoint(w.members("train")))


def test_only_those_whom_every_accusation_names_are_meant() -> None:
    world = gang(6, 4)
    accuse(world, "a-1", "a-2")
    accuse(world, "a-2", "a-3")
    accuse(world, "a-2", "a-4")
    assert evicted(world) == ["a-2"]


def test_the_guilty_one_is_repaired_and_the_innocent_one_is_not() -> None:
    world = gang(4, 4)
    for _ in range(3):
        accuse(world, "a-2", "a-3")
    world.until(lambda w: w.states()["a-2"] == "burn-in").run(1)
    world.fault("a-2")
    world.until(lambda w: w.states()["a-3"] == "spare")
    world.until(lambda w: w.states()["a-2"] == "spare")
    assert {one.node for one in world.done if isinstance(one, Repair)} == {"a-2"}


def test_who_is_among_the_suspects_again_after_an_acquittal_is_repaired() -> None:
    world = gang(2, 2, replace(ROOMY, evictions_per_hour=50, cohort_evictions_per_hour=50))
    for first, second in (("a-1", "a-2"), ("a-3", "a-4")):
        for _ in range(3):
            accuse(world, first, second)
        world.until(lambda w, n=first: w.states()[n] in ("spare", "standby"))  # type: ignore[misc]
    world.until(lambda w: set(w.members("train")) == {"a-1", "a-2"} and running(w))
    assert not any(isinstance(one, Repair) for one in world.done)
    for _ in range(3):
        accuse(world, "a-1", "a-2")
    world.until(lambda w: {d.node for d in w.done if isinstance(d, Repair)} == {"a-1", "a-2"})
    assert world.told("among the suspects 2 times, and acquitted before")
    world.until(lambda w: w.states()["a-1"] in ("spare", "standby"))  # and not for ever


@pytest.mark.parametrize(
    ("why", "size", "spares", "policy"),
    [
        ("no spares", 6, 1, ROOMY),
        ("off", 6, 4, replace(ROOMY, over_evict_after=0)),
        ("the hour's budget", 6, 4, replace(ROOMY, evictions_per_hour=1)),
        ("the cohort's budget", 6, 4, replace(ROOMY, cohort_evictions_per_hour=1)),
        ("the fleet's budget", 6, 4, replace(ROOMY, fleet_evictions_per_hour=1)),
        ("the cluster's share", 6, 4, replace(ROOMY, quarantine_share=0.1, fleet_share=0.1)),
        ("the cohort's share", 6, 4, replace(ROOMY, cohort_share=0.1)),
        ("old news", 6, 4, replace(ROOMY, over_evict_window=timedelta(seconds=2))),
    ],
)
def test_a_group_stays_where_it_would_not_help_or_is_too_much(
    why: str, size: int, spares: int, policy: Policy
) -> None:
    world = gang(size, spares, policy)
    for _ in range(4):
        accuse(world, "a-2", "a-3")
    assert evicted(world) == [], why


def test_a_large_group_has_a_shared_cause_and_stays() -> None:
    world = gang(6, 4)
    for _ in range(4):
        accuse(world, "a-1", "a-2", "a-3")
    assert evicted(world) == []


def test_an_explicit_fault_comes_before_every_suspicion() -> None:
    world = gang(6, 4)
    for _ in range(2):
        accuse(world, "a-2", "a-3")
    world.fault("a-5")
    accuse(world, "a-2", "a-3")
    assert evicted(world)[0] == "a-5"


def test_an_accusation_neither_wins_nor_loses_trust() -> None:
    strict = replace(ROOMY, doubt_max=0.02, relapse_mean=timedelta(hours=1))
    world = gang(4, 4, strict)
    before = world.fleet.nodes[NodeName("a-2")].trial_since
    assert before is not None
    for _ in range(3):
        accuse(world, "a-2", "a-3")
    world.until(lambda w: w.states()["a-2"] == "probation")
    assert world.fleet.nodes[NodeName("a-2")].trial_since == before


def test_an_accusation_from_before_the_present_boot_is_history() -> None:
    world = gang(4, 2)
    then = world.fleet.now - timedelta(seconds=1)
    world.nodes["a-2"].boot += 1
    world.nodes["a-2"].agents.clear()
    world.run(1)
    words = ("late", then)
    accused = Accused(JobName("train"), 1, (NodeName("a-2"),), 0.999, Channel.GANG, *words)
    world.see(accused)
    world.run(10)
    assert evicted(world) == []
