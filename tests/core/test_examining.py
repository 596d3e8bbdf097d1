"""Active checks of idle nodes: when they are due, how many at once, and what they find."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.core.decisions import Examine
from orchestrator.core.jobs import JobSpec
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from tests.core.test_stories import running
from tests.core.world import BEGIN, QUICK, World

SHORT = replace(
    QUICK, active_every=timedelta(seconds=20), active_after=timedelta(seconds=5), active_share=0.5
)
SLOW = Finding(
    check="gemm",
    component="cuda:0",
    severity=Severity.CRITICAL,
    fault=FaultClass.HARDWARE,
    evidence="88 % of the expected rate",
    channel=Channel.NODE,
    observed_at=BEGIN,
)


def examined(world: World) -> list[str]:
    return [one.node for one in world.done if isinstance(one, Examine)]


def test_idle_nodes_are_examined_a_share_of_them_at_once_and_never_a_gang() -> None:
    world = World({"a": 4}, SHORT)
    world.submit("train", JobSpec(nodes_min=1, nodes_max=1, register="/r"))
    world.until(running)
    idle = {name for name, state in world.states().items() if state == "spare"}
    world.run(12)
    assert set(examined(world)) == idle
    assert len(examined(world)) == 2  # half of the cluster, and none again so soon
    asked = [one for one in world.done if isinstance(one, Examine)]
    assert all("not examined in this boot" in one.reason for one in asked)


def test_a_node_is_examined_again_only_when_it_is_due() -> None:
    world = World({"a": 1}, replace(SHORT, active_every=timedelta(minutes=12)))
    world.until(lambda w: len(examined(w)) == 1).run(2)
    world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(minutes=11))
    world.run(10)
    assert len(examined(world)) == 1
    world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(minutes=1))
    world.until(lambda w: len(examined(w)) == 2)


def test_what_active_checks_alone_find_keeps_an_idle_node_back() -> None:
    world = World({"a": 3}, replace(SHORT, active_share=1.0))
    world.nodes["a-2"].hidden = [SLOW]
    world.until(
        lambda w: w.told("put a-2 in quarantine: gemm on cuda:0 (88 % of the expected rate)")
    )
    assert "a-2" in examined(world)


def test_work_comes_first() -> None:
    """A node that gets a seat while it is examined takes it; the next idleness begins anew."""
    world = World({"a": 1}, SHORT)
    world.until(lambda w: len(examined(w)) == 1)
    world.submit("train", JobSpec(nodes_min=1, nodes_max=1, register="/r"))
    world.until(running)
    world.run(20)
    assert len(examined(world)) == 1


def test_nobody_is_examined_where_the_policy_says_so() -> None:
    world = World({"a": 2}, replace(SHORT, active_checks=False)).run(20)
    assert examined(world) == []
