"""Whole stories, told by the core in a small pure world."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.jobs import JobSpec
from orchestrator.core.observations import OrderKind
from tests.core.world import World

TWO = JobSpec(nodes_min=2, nodes_max=2, register="/r", stop_grace=timedelta(seconds=1))


def running(world: World, job: str = "train") -> bool:
    return job in world.fleet.jobs and world.steps(job) > 2


def started(clusters: dict[str, int], spec: JobSpec = TWO) -> World:
    world = World(clusters)
    world.submit("train", spec)
    return world.until(running)


def test_a_gang_is_placed_with_a_standby_and_a_spare_is_kept() -> None:
    world = started({"a": 4})
    assert world.states() == {"a-1": "in-use", "a-2": "in-use", "a-3": "standby", "a-4": "spare"}
    assert world.attempt("train").number == 1
    assert world.pages() == set()


def test_a_broken_gpu_is_evicted_and_its_standby_takes_its_place() -> None:
    world = started({"a": 4})
    world.fault("a-2")
    world.until(lambda w: w.members("train") == ("a-1", "a-3"))
    said = (
        "evicted a-2 from train: XID 79 on gpu0 (GPU has fallen off the bus); "
        "standby a-3 takes its place"
    )
    assert said in world.story
    world.until(lambda w: w.states()["a-4"] == "standby")
    world.until(lambda w: w.told("asked the provider to reboot a-2"))
    world.until(lambda w: w.states()["a-2"] == "spare")
    assert world.told("a-2 earns its trust in burn-in: repaired")
    assert world.attempt("train").number == 1
    assert ("hardware-fault", "a-2") not in world.pages()


def test_without_a_standby_a_spare_is_started_before_the_gang_is_told() -> None:
    world = started({"a": 3}, JobSpec(nodes_min=2, nodes_max=2))
    assert world.states() == {"a-1": "in-use", "a-2": "in-use", "a-3": "spare"}
    world.fault("a-1")
    world.until(lambda w: set(w.members("train")) == {"a-2", "a-3"})
    assert world.told("spare a-3 takes its place")
    assert [g.split(":")[1] for g in world.story if g.startswith("grant 2")] == [
        " a-2, a-3; without a-1; a-3 comes in"
    ]


def test_a_lost_node_is_replaced_by_the_gang_and_rebooted_by_its_provider() -> None:
    world = started({"a": 3})
    world.stop_power("a-2")
    world.until(lambda w: w.states()["a-2"] == "repairing")
    assert ("node-lost", "a-2") in world.pages()
    world.until(lambda w: w.members("train") == ("a-1", "a-3"))
    world.until(lambda w: w.states()["a-2"] == "standby")
    assert world.states() == {"a-1": "in-use", "a-2": "standby", "a-3": "in-use"}
    assert world.attempt("train").number == 1


def test_a_lost_cluster_is_waited_for_and_then_left_behind_a_fence() -> None:
    world = started({"a": 3, "b": 3})
    for node in ("a-1", "a-2", "a-3"):
        world.stop_power(node, for_good=True)
    world.until(lambda w: ("no-spare", "train") in w.pages())
    began = world.fleet.now
    world.until(lambda w: w.attempt("train").number == 2)
    assert timedelta(seconds=5) <= world.fleet.now - began <= timedelta(seconds=7)
    assert ("cluster-lost", "train") in world.pages()
    world.until(lambda w: w.members("train") == ("b-1", "b-2"))
    world.run(30)
    assert world.lineages["train"].attempt == 2
    assert {world.states()[name] for name in ("a-1", "a-2", "a-3")} == {"quarantined"}
    assert ("repair-limit", "a-1") in world.pages()
    assert ("cluster-lost", "train") not in world.pages()


def test_killed_agents_are_started_again_where_they_were() -> None:
    world = started({"a": 2}, JobSpec(nodes_min=2, nodes_max=2, register="/r"))
    world.kill_agent("a-1", proof=True)
    world.kill_agent("a-2")
    before = world.steps("train")
    world.until(lambda w: w.steps("train") > before + 3)
    assert world.told("swept a-2 clean")
    assert world.attempt("train").number == 1


def test_a_stopped_job_leaves_nothing_behind() -> None:
    world = started({"a": 3})
    world.order(OrderKind.STOP, "train")
    world.until(lambda w: w.job("train") == "stopped")
    assert set(world.states().values()) == {"spare"}
    assert not any(sim.agents for sim in world.nodes.values())


def test_a_job_that_ends_well_gives_its_nodes_back() -> None:
    world = World({"a": 3})
    world.submit("train", TWO, steps=12)
    world.until(lambda w: "train" in w.fleet.jobs and w.job("train") == "succeeded")
    assert set(world.states().values()) == {"spare"}
    assert world.pages() == set()
