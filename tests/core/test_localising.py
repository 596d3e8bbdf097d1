"""From an incident without a culprit to one: the links of the gang's nodes are tested in rounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest

from orchestrator.core.assess import assess
from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import MoveNode, TestPairs
from orchestrator.core.jobs import JobSpec
from orchestrator.core.observations import PairsTested
from orchestrator.runtime.lineage import Cause
from tests.core.test_stories import running
from tests.core.world import QUICK, World

TIMEOUT = "exit N: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=N)"


def gang(size: int = 4, spares: int = 2, **limits: object) -> World:
    world = World({"a": size + spares}, replace(QUICK, **limits))  # type: ignore[arg-type]
    world.submit("train", JobSpec(nodes_min=size, nodes_max=size, register="/r"))
    return world.until(running).run(2)


def rounds(world: World) -> list[TestPairs]:
    return [one for one in world.done if isinstance(one, TestPairs)]


def evicted(world: World) -> list[str]:
    moves = [one for one in world.done if isinstance(one, MoveNode)]
    return [one.node for one in moves if one.counts == "eviction"]


@pytest.mark.parametrize(
    ("cause", "words"), [(Cause.HANG, ""), (Cause.RANK_EXIT, TIMEOUT)], ids=["hang", "time-out"]
)
def test_a_node_behind_a_slow_link_is_named_and_evicted(cause: Cause, words: str) -> None:
    world = gang()
    world.slow_links = {"a-3"}
    world.end_generation("train", cause, words)
    world.until(lambda w: evicted(w) == ["a-3"])
    assert world.told("evicted a-3 from train: localise named on host")
    assert world.told("tests with it failed, 0 of ")
    first = rounds(world)[0]
    assert len(first.inquiry.nodes) == 6  # two that are idle help to tell four apart
    assert [one.round for one in rounds(world)] == list(range(len(rounds(world))))
    assert all(len(set(one.nodes)) == 2 * len(one.pairs) for one in rounds(world))
    assert first.inquiry.gpu is None  # ranks run there


def test_links_that_are_well_accuse_nobody_and_are_tested_once() -> None:
    world = gang()
    world.end_generation("train", Cause.HANG)
    world.until(lambda w: bool(rounds(w))).run(20)
    assert evicted(world) == []
    assert len({one.occasion for one in rounds(world)}) == 1
    assert len(rounds(world)) < 12
    assert not any(node.accused for node in world.fleet.beliefs.nodes.values())


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause.RANK_EXIT, "exit N: ValueError: bad batch"),
        (Cause.NODE_LOST, ""),
        (Cause.RANK_STOPPED, ""),
    ],
)
def test_what_explains_itself_is_not_looked_into(cause: Cause, words: str) -> None:
    world = gang()
    world.end_generation("train", cause, words)
    world.run(8)
    assert rounds(world) == []


def test_a_fault_that_a_check_names_is_the_explanation() -> None:
    world = gang()
    world.fault("a-2")
    world.end_generation("train", Cause.HANG)
    world.run(3)
    assert rounds(world) == []


def test_when_no_test_comes_about_people_are_told_of_a_shared_cause() -> None:
    world = gang(size=8, spares=3)
    world.no_links = True
    world.end_generation("train", Cause.HANG)
    world.until(lambda w: ("shared-cause", "train") in w.pages())
    assert evicted(world) == []
    assert world.told("more pairs fail than three nodes or one leaf explain; nobody is evicted")


def test_a_job_has_so_many_localisations_an_hour_and_no_more() -> None:
    world = gang(localisations_per_hour=1)
    for _ in range(2):
        world.end_generation("train", Cause.HANG)
        world.run(12)
    assert len({one.occasion for one in rounds(world)}) == 1


def test_no_links_are_tested_where_the_policy_says_so() -> None:
    world = gang(localisations_per_hour=0)
    world.end_generation("train", Cause.HANG)
    world.run(10)
    assert rounds(world) == []


def test_a_node_that_leaves_ends_the_localisation() -> None:
    world = gang()
    world.slow_links = {"a-3"}
    world.end_generation("train", Cause.HANG)
    world.until(lambda w: len(rounds(w)) == 1)
    world.nodes["a-1"].reachable = False
    world.run(3)
    count = len(rounds(world))
    world.run(8)
    assert len(rounds(world)) == count
    assert evicted(world) == []


def test_the_rounds_are_believed_in_whatever_order_they_come() -> None:
    world = gang()
    world.slow_links = {"a-3"}
    world.end_generation("train", Cause.HANG)
    world.until(lambda w: evicted(w) == ["a-3"])
    (links,) = world.fleet.beliefs.links.values()
    told = links.rounds
    assert all(isinstance(one, PairsTested) for one in told)
    now = world.fleet.now
    whole = assess(Beliefs(), told, now)
    assert whole.nodes["a-3"].accused  # type: ignore[index]
    for order in list(permutations(told))[:12]:
        beliefs = Beliefs()
        for one in order:
            beliefs = assess(beliefs, [one, one], now)
        assert beliefs == whole
    later = assess(whole, [], now + timedelta(days=2))
    assert later.links == {}
