"""What people ask for is done or refused, and answered once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.core.decisions import SettleOrder
from orchestrator.core.jobs import JobSpec, WhenAlone
from orchestrator.core.nodes import ClusterName
from orchestrator.core.observations import OrderKind
from orchestrator.core.submission import plain, read_spec
from orchestrator.errors import UserError
from tests.core.test_stories import TWO, started
from tests.core.world import World

K = OrderKind


def answer(world: World, kind: OrderKind, subject: str, by: str = "ann") -> tuple[bool, str]:
    number = world.order(kind, subject, by)
    world.run(2)
    said = [d for d in world.done if isinstance(d, SettleOrder) and d.order == number]
    assert len(said) == 1
    return said[0].done, said[0].reason


def test_an_unknown_subject_is_refused_by_name() -> None:
    world = started({"a": 3})
    assert answer(world, K.CORDON, "a-9") == (False, "no node is called a-9")
    assert answer(world, K.STOP, "tarin") == (False, "no job is called tarin")


def test_a_name_once_used_stays_taken() -> None:
    world = World({"a": 3})
    world.submit("train", TWO, steps=3)
    world.until(lambda w: "train" in w.fleet.jobs and w.job("train") == "succeeded")
    done, reason = answer(world, K.SUBMIT, "train")
    assert not done
    assert reason == "the name train is taken by a job that is succeeded"
    assert answer(world, K.STOP, "train") == (False, "train is over: succeeded")


def test_a_job_that_cannot_be_is_refused() -> None:
    world = World({"a": 1})
    number = world.order(K.SUBMIT, "train", nodes_min=3, nodes_max=2)
    world.run(1)
    assert f"order {number} refused: nodes 3 to 2 is no size of a gang" in world.story


def test_a_spec_survives_the_wire() -> None:
    spec = JobSpec(
        1,
        2,
        clusters=(ClusterName("a"),),
        when_alone=WhenAlone.STOP_AFTER,
        stop_after=timedelta(minutes=1),
        budget={"hang": 2},
        launch={"command": ["x"]},
    )
    assert read_spec(plain(spec)) == spec


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"nodes": 2}, "unknown keys: nodes"),
        ({"nodes_min": "two", "nodes_max": 2}, "not a job"),
        ({"nodes_min": 1}, "not a job"),
        ({"nodes_min": 1, "nodes_max": 1, "when_alone": "hope"}, "not a job"),
    ],
)
def test_a_body_that_is_no_spec_says_why(body: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_spec(body)


def test_a_cordoned_node_keeps_its_ranks_and_takes_no_new_ones() -> None:
    world = started({"a": 4})
    answer(world, K.CORDON, "a-1")
    answer(world, K.CORDON, "a-3")
    world.run(10)
    assert world.states() == {"a-1": "in-use", "a-2": "in-use", "a-3": "spare", "a-4": "standby"}
    assert set(world.members("train")) == {"a-1", "a-2"}


def test_only_its_owner_lifts_an_operators_cordon() -> None:
    world = started({"a": 4})
    answer(world, K.CORDON, "a-4", by="ann")
    assert answer(world, K.CORDON, "a-4", by="bob")[0]
    done, reason = answer(world, K.UNCORDON, "a-4", by="bob")
    assert not done
    assert "operator:ann" in reason
    assert answer(world, K.UNCORDON, "a-4", by="ann") == (True, "takes ranks again")
    assert answer(world, K.UNCORDON, "a-4", by="ann") == (True, "was not cordoned")


def test_a_drained_node_leaves_when_a_replacement_is_there() -> None:
    world = started({"a": 4})
    assert answer(world, K.DRAIN, "a-1")[0]
    world.until(lambda w: w.states()["a-1"] == "spare")
    assert set(world.members("train")) == {"a-2", "a-3"}
    assert world.states()["a-4"] == "standby"
    assert answer(world, K.RELEASE, "a-1") == (True, "earns its trust in burn-in")


def test_a_drained_node_stays_while_the_gang_cannot_do_without_it() -> None:
    world = started({"a": 2})
    assert answer(world, K.DRAIN, "a-1")[0]
    world.run(15)
    assert world.states()["a-1"] == "draining"
    assert set(world.members("train")) == {"a-1", "a-2"}
    assert answer(world, K.DRAIN, "a-1")[0]
    assert "as soon as it is empty" in answer(world, K.RELEASE, "a-1")[1]


def test_an_idle_node_is_drained_at_once() -> None:
    world = started({"a": 4})
    assert answer(world, K.DRAIN, "a-4") == (True, "holds no ranks (spare); takes none either")


def test_a_quarantine_by_hand_is_never_ended_by_the_machine() -> None:
    world = started({"a": 4})
    assert answer(world, K.QUARANTINE, "a-2", by="ann")[0]
    assert answer(world, K.QUARANTINE, "a-2", by="ann")[0]
    world.run(60)
    assert world.states()["a-2"] == "quarantined"
    assert set(world.members("train")) == {"a-1", "a-3"}
    assert answer(world, K.RELEASE, "a-2", by="ann") == (True, "earns its trust in burn-in")
    world.until(lambda w: w.states()["a-2"] == "spare")


def test_another_operator_may_release_a_node_but_not_lift_its_cordon() -> None:
    world = started({"a": 4})
    answer(world, K.QUARANTINE, "a-4", by="ann")
    done, reason = answer(world, K.RELEASE, "a-4", by="bob")
    assert done
    assert "operator:ann keeps it cordoned" in reason
    world.run(10)
    assert world.states()["a-4"] == "spare"
    assert not answer(world, K.RELEASE, "a-1", by="bob")[0]


def test_a_pardon_makes_older_findings_history() -> None:
    world = started({"a": 4})
    world.nodes["a-4"].starts_again = False
    world.fault("a-4")
    world.until(lambda w: w.states()["a-4"] == "quarantined")
    answer(world, K.RELEASE, "a-4")
    world.until(lambda w: w.states()["a-4"] == "spare")
    world.run(5)
    assert world.states()["a-4"] == "spare"
    assert answer(world, K.STOP, "train") == (True, "stopping")


def test_a_job_that_waits_is_stopped_at_once() -> None:
    world = World({"a": 1})
    world.submit("train", TWO)
    world.run(3)
    assert answer(world, K.STOP, "train") == (True, "stopping")
    assert world.job("train") == "stopped"
