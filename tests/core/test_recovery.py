"""Attempts: fences first, patience, retries, and what a job becomes in the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

from orchestrator.core.beliefs import AgentBelief
from orchestrator.core.gang import Gang, read_gang
from orchestrator.core.jobs import Attempt, AttemptState, JobSpec, Outcome, WhenAlone
from orchestrator.core.look import Look
from orchestrator.core.nodes import ClusterName, JobName, NodeName
from orchestrator.core.observations import OrderKind
from orchestrator.core.placement import unfit_to_seat
from orchestrator.core.reconcile import reconcile
from orchestrator.runtime.lineage import Fence
from orchestrator.runtime.reports import Stage
from tests.core.test_stories import TWO, running, started
from tests.core.world import QUICK, SimNode, World

RUN = (JobName("train"), 1)


def cut_off(world: World, *nodes: str, reachable: bool = False) -> None:
    """Hide nodes from us, from the register and from each other; their ranks go on."""
    for node in nodes:
        world.nodes[node].reachable = reachable


def fail(world: World, node: str, fingerprint: str = "exit 1: ValueError") -> None:
    attempt = world.attempt("train").number
    agent = world.nodes[node].agents[JobName("train"), attempt]
    agent.stage, agent.failure = Stage.FAILED, {"fingerprint": fingerprint}


def foreign_fence(world: World, attempt: int) -> None:
    """Append a fence as another controller would."""
    world.append("train", lambda seq: Fence(seq, "x", 1, attempt, 0.0))


def formed(number: int, world: World) -> bool:
    return world.attempt("train").number == number and bool(world.members("train"))


def committed(number: int, world: World) -> bool:
    return formed(number, world) and world.steps("train") > 6


def test_a_cluster_out_of_reach_is_left_after_patience_behind_a_fence() -> None:
    world = started({"a": 3, "b": 3})
    cut_off(world, "a-1", "a-2", "a-3")
    world.frozen.add("train.1")
    world.until(lambda w: w.attempt("train").number == 2, limit=60)
    old = next(one for one in world.fleet.attempts if one.number == 1)
    assert (old.state, old.outcome) == (AttemptState.CLOSING, Outcome.MOVED)
    world.until(lambda w: w.members("train") == ("b-1", "b-2"))
    assert world.lineages["train"].attempt == 2
    cut_off(world, "a-1", "a-2", "a-3", reachable=True)
    world.until(lambda w: all(one.number == 2 for one in w.fleet.attempts))
    assert not any(world.nodes[name].agents for name in ("a-1", "a-2", "a-3"))
    assert {world.states()[name] for name in ("a-1", "a-2", "a-3")} == {"spare"}


def test_a_cluster_out_of_sight_that_still_commits_is_left_in_peace() -> None:
    world = started({"a": 3, "b": 3})
    cut_off(world, "a-1", "a-2", "a-3")
    world.run(60)
    assert world.attempt("train").number == 1
    assert world.steps("train") > 60


def test_a_job_that_writes_files_itself_begins_anew_only_when_the_old_ranks_have_stopped() -> None:
    alone = timedelta(seconds=60)
    spec = replace(TWO, when_alone=WhenAlone.STOP_AFTER, stop_after=alone)
    world = started({"a": 3, "b": 3}, spec)
    cut_off(world, "a-1", "a-2", "a-3")
    began = world.fleet.now
    world.frozen.add("train.1")
    world.until(lambda w: w.attempt("train").number == 2, limit=60)
    world.until(lambda w: w.lineages["train"].attempt == 2)
    world.until(lambda w: w.attempt("train").state is AttemptState.OPEN, limit=150)
    assert world.fleet.now - began >= alone + QUICK.alone_margin


def test_without_a_register_a_job_waits_for_proof() -> None:
    world = started({"a": 2, "b": 2}, JobSpec(nodes_min=2, nodes_max=2))
    cut_off(world, "a-1", "a-2")
    world.run(60)
    assert world.attempt("train").number == 1
    world.stop_power("a-1", for_good=True)
    world.stop_power("a-2", for_good=True)
    world.until(lambda w: set(w.members("train")) == {"b-1", "b-2"})


def test_a_failed_attempt_is_followed_by_another_on_the_same_cluster() -> None:
    world = started({"a": 3, "b": 3})
    fail(world, "a-1")
    world.until(lambda w: w.attempt("train").number == 2)
    assert world.attempt("train").cluster == "a"
    world.until(running)
    assert world.job("train") == "running"


def test_the_same_failure_three_times_with_nothing_committed_is_the_jobs_own() -> None:
    world = started({"a": 3})
    for number in (1, 2, 3):
        world.until(partial(formed, number))
        fail(world, world.members("train")[0])
        world.run(2)
    world.until(lambda w: w.job("train") == "failed")
    assert ("job-failed", "train") in world.pages()
    assert world.told("3 attempts in a row failed alike with nothing committed in between")
    world.until(lambda w: set(w.states().values()) == {"spare"})


def test_progress_between_two_failures_makes_them_strangers() -> None:
    world = started({"a": 3})
    for number in (1, 2, 3, 4):
        world.until(partial(committed, number))
        fail(world, world.members("train")[0])
        world.run(2)
    assert world.job("train") != "failed"


def test_attempts_are_not_endless() -> None:
    world = started({"a": 3}, replace(TWO, attempts_max=1))
    fail(world, "a-2", fingerprint="")
    world.until(lambda w: w.job("train") == "failed")
    assert world.told("1 attempts in a row committed nothing: the gang gave up on a-2")


def test_attempts_that_commit_are_not_counted() -> None:
    world = started({"a": 3}, replace(TWO, attempts_max=2))
    for number in (1, 2, 3, 4):
        world.until(partial(committed, number))
        fail(world, world.members("train")[0], fingerprint=f"unlike the others: {number}")
        world.until(lambda w, n=number: w.attempt("train").number > n and running(w))  # type: ignore[misc]
    assert world.job("train") == "running"


def test_a_gang_that_ended_only_in_part_is_tried_again() -> None:
    world = started({"a": 3})
    world.nodes["a-1"].agents[RUN].stage = Stage.FINISHED
    world.kill_agent("a-2", proof=True)
    world.until(lambda w: w.attempt("train").number == 2, limit=40)
    assert world.told("a-1 ended well, a-2 did not")


def test_another_controllers_fence_ends_our_attempt_and_ours_comes_after() -> None:
    world = started({"a": 3})
    foreign_fence(world, 2)
    world.until(lambda w: w.attempt("train").number == 3)
    assert world.told("the register is at attempt 2: fenced off")
    world.until(running)


def test_a_fence_of_our_number_by_another_controller_ends_our_attempt_too() -> None:
    world = started({"a": 3})
    registers = world.fleet.beliefs.registers
    (job, register), *_ = registers.items()
    seen = register.seen
    assert seen is not None
    assert seen.fence is not None
    theirs = replace(seen, fence=replace(seen.fence, by="somebody else"))
    beliefs = replace(world.fleet.beliefs, registers={job: replace(register, seen=theirs)})
    assert "fenced off" not in str(reconcile(world.fleet, QUICK).decisions)
    assert "fenced off" in str(reconcile(replace(world.fleet, beliefs=beliefs), QUICK).decisions)


def test_a_node_with_an_agent_that_is_not_proven_gone_gets_no_seat() -> None:
    world = World({"a": 3}).run(5)
    name = NodeName("a-1")
    belief = replace(world.fleet.beliefs.nodes[name], agents=(AgentBelief(JobName("old"), 1),))
    beliefs = replace(world.fleet.beliefs, nodes={**world.fleet.beliefs.nodes, name: belief})
    for fleet, why in (
        (world.fleet, None),
        (
            replace(world.fleet, beliefs=beliefs),
            "something of an older attempt may still run there",
        ),
    ):
        assert unfit_to_seat(Look(fleet, QUICK), fleet.nodes[name], TWO) == why


def test_missing_fences_are_appended_in_their_order() -> None:
    world = started({"a": 3})
    world.fleet = replace(
        world.fleet,
        jobs={name: replace(job, attempts=2) for name, job in world.fleet.jobs.items()},
    )
    fail(world, "a-1")
    world.until(lambda w: w.attempt("train").number == 3)
    world.until(lambda w: w.lineages["train"].attempt == 3)
    assert world.told("fenced off every attempt of train before 2")


def test_a_register_that_cannot_be_reached_holds_the_attempt_and_is_paged() -> None:
    world = World({"a": 3})
    world.silent_registers.add("train")
    world.submit("train", TWO)
    world.run(12)
    assert world.attempt("train").state is AttemptState.OPENING
    assert not world.told("started an agent")
    world.silent_registers.clear()
    world.until(running)


def test_an_agent_that_never_comes_up_gives_its_seat_away() -> None:
    policy = replace(QUICK, agent_starts_max=2)
    world = World({"a": 4}, policy)
    world.nodes["a-1"].agents_start = False
    world.submit("train", TWO)
    world.until(running, limit=60)
    assert world.told("its agent did not stay up in 2 starts")
    assert "a-1" not in world.members("train")


def test_an_agent_that_keeps_dying_is_started_again_and_again_within_its_budget() -> None:
    world = started({"a": 3})
    for _ in range(4):
        world.until(lambda w: RUN in w.nodes["a-3"].agents)
        world.kill_agent("a-3", proof=True)
        world.run(2)
    world.run(40)
    starts = [
        line
        for line in world.story
        if line.startswith("started an agent of train, attempt 1, on a-3")
    ]
    assert len(starts) <= QUICK.agent_starts_max


def test_an_agent_that_only_its_peers_hear_is_left_alone() -> None:
    world = started({"a": 3})
    world.deaf.add("a-1")
    world.run(20)
    assert not world.told("swept a-1")
    assert world.attempt("train").number == 1


def test_a_job_prefers_the_clusters_it_names_in_its_order() -> None:
    world = World({"a": 3, "b": 3, "c": 3})
    world.submit("train", replace(TWO, clusters=(ClusterName("c"), ClusterName("b"))))
    world.until(running)
    assert world.attempt("train").cluster == "c"


def test_a_node_of_another_kind_is_not_taken() -> None:
    world = World({"a": 3})
    world.submit("train", replace(TWO, accelerator="h200"))
    world.run(15)
    assert world.job("train") == "pending"
    assert ("no-spare", "train") in world.pages()


def test_the_dearer_job_is_placed_first() -> None:
    world = World({"a": 2})
    world.submit("cheap", TWO)
    world.submit("dear", replace(TWO, priority=5))
    world.run(10)
    assert (world.job("cheap"), world.job("dear")) == ("pending", "running")


def test_two_jobs_never_count_on_the_same_spares() -> None:
    world = World({"a": 3})
    world.submit("one", JobSpec(nodes_min=2, nodes_max=2))
    world.submit("two", JobSpec(nodes_min=2, nodes_max=2))
    world.run(10)
    assert sorted([world.job("one"), world.job("two")]) == ["pending", "running"]


def test_a_gang_may_shrink_to_its_least_size_and_grow_again() -> None:
    world = started({"a": 2}, JobSpec(nodes_min=1, nodes_max=2, register="/r"))
    world.stop_power("a-2")
    world.until(lambda w: w.members("train") == ("a-1",))
    world.until(lambda w: w.states()["a-2"] == "in-use")
    world.until(lambda w: set(w.members("train")) == {"a-1", "a-2"})


def test_a_stopped_job_whose_nodes_are_out_of_reach_is_not_called_stopped() -> None:
    world = started({"a": 3})
    cut_off(world, "a-1")
    world.order(OrderKind.STOP, "train")
    world.run(20)
    assert world.job("train") == "stopping"
    assert world.states() == {"a-1": "in-use", "a-2": "spare", "a-3": "spare"}
    cut_off(world, "a-1", reachable=True)
    world.until(lambda w: w.job("train") == "stopped")


def test_a_job_that_ended_well_is_not_kept_waiting_by_a_silent_standby() -> None:
    world = World({"a": 3})
    world.submit("train", TWO, steps=20)
    world.until(running)
    cut_off(world, "a-3")
    world.until(lambda w: w.job("train") == "succeeded")
    assert world.states()["a-3"] == "standby"


def test_nodes_granted_before_the_first_generation_are_named_once() -> None:
    world = started({"a": 3})
    attempt: Attempt = world.attempt("train")
    assert attempt.grant is not None
    assert attempt.grant.seats == (NodeName("a-1"), NodeName("a-2"), NodeName("a-3"))
    assert attempt.grant.number == 1


def test_what_was_started_and_never_heard_of_is_swept_when_its_job_ends() -> None:
    world = World({"a": 3})
    world.nodes["a-3"].agents_start = False
    world.submit("train", TWO)
    world.until(running)
    world.order(OrderKind.STOP, "train")
    world.until(lambda w: w.job("train") == "stopped")
    assert world.told("swept a-3 clean of train, attempt 1: train is closing")


def test_a_gang_without_a_register_asks_for_each_new_formation() -> None:
    world = started({"a": 2}, JobSpec(nodes_min=2, nodes_max=2))
    world.frozen.add("train.1")
    for node in ("a-1", "a-2"):
        world.nodes[node].agents[RUN].stage = Stage.WAITING
    world.until(lambda w: w.told("grant 2 of train: a-1, a-2; the gang cannot form"), limit=3)


def test_one_standby_too_many_is_let_go() -> None:
    world = World({"a": 4}, replace(QUICK, standbys=2))
    world.submit("train", TWO)
    world.until(running)
    world.policy = QUICK
    world.until(lambda w: w.states()["a-4"] == "spare")
    assert world.states()["a-3"] == "standby"
    assert world.granted("train") == ("a-1", "a-2", "a-3")


def test_a_node_lost_before_its_agent_began_is_replaced_at_once_it_is_missed() -> None:
    world = World({"a": 4})
    world.silent_registers.add("train")
    world.submit("train", TWO)
    world.until(lambda w: bool(w.fleet.attempts))
    cut_off(world, "a-1")
    world.until(lambda w: w.states()["a-4"] in ("in-use", "standby"))
    assert world.states()["a-1"] == "spare"


def test_a_standby_begins_in_the_place_of_a_seat_whose_agent_does_not_come_up() -> None:
    world = World({"a": 3})
    world.nodes["a-1"].agents_start = False
    world.submit("train", TWO)
    world.until(running)
    assert world.members("train") == ("a-2", "a-3")


def test_a_broken_node_that_the_breaker_keeps_seated_gets_no_new_agent() -> None:
    world = started({"a": 3}, JobSpec(nodes_min=2, nodes_max=2))
    world.policy = replace(QUICK, quarantine_share=0.0)
    world.fault("a-3")
    world.until(lambda w: w.states()["a-3"] in ("quarantined", "repairing"))
    world.nodes["a-3"].starts_again = False
    world.fault("a-1")
    world.run(1)
    world.kill_agent("a-1", proof=True)
    world.run(3)
    assert world.states()["a-1"] == "in-use"
    assert ("eviction-limit", "a") in world.pages()
    assert sum("attempt 1, on a-1" in line for line in world.story if "started" in line) == 1


def test_a_silent_agent_of_an_ending_attempt_is_swept() -> None:
    world = started({"a": 3})
    world.kill_agent("a-1")
    world.order(OrderKind.STOP, "train")
    world.until(lambda w: w.job("train") == "stopped")
    assert set(world.states().values()) == {"spare"}


def test_an_agent_evicted_before_the_first_grant_is_stopped() -> None:
    world = World({"a": 3})
    world.submit("train", TWO)
    world.until(lambda w: w.told("started an agent of train, attempt 1, on a-1"))
    world.nodes["a-2"].agents_start = False
    world.run(1)
    world.fault("a-1")
    world.until(lambda w: w.told("a-1 left train before it was granted"))


def test_an_agent_that_was_revoked_is_stopped_once_it_acknowledged() -> None:
    world = started({"a": 4})
    world.fault("a-2")
    world.until(lambda w: w.told("gave grant 2 of train to a-2"))
    assert not world.told("stopped train, attempt 1, on a-2")
    world.until(lambda w: w.told("stopped train, attempt 1, on a-2: grant 3 of train leaves it"))


def test_an_opening_attempt_whose_fence_is_foreign_begins_again_with_the_next_number() -> None:
    world = World({"a": 3})
    for attempt in (1, 2, 3):
        foreign_fence(world, attempt)
    world.submit("train", TWO)
    world.until(running)
    assert world.attempt("train").number == 4
    assert world.lineages["train"].attempt == 4


def test_a_job_that_names_only_unknown_clusters_waits() -> None:
    world = World({"a": 3})
    world.submit("train", replace(TWO, clusters=(ClusterName("z"),)))
    world.run(8)
    assert world.job("train") == "pending"


def test_a_generation_is_given_up_only_when_none_of_its_members_is_heard() -> None:
    world = started({"a": 4})
    formed = world.lineages["train"].latest
    assert formed is not None
    assert gang(world).lost is None
    world.deaf.add("a-1")
    world.run(3)
    assert gang(world).lost is None
    world.deaf.add("a-2")
    world.until(lambda w: gang(w).lost == formed.seq, limit=5)


def gang(world: World) -> Gang:
    return read_gang(Look(world.fleet, QUICK), world.attempt("train"))


def hungry(ours: int = 0, *, standbys: int = 1) -> World:
    """Return a world in which `weak` has lost a node for good; `train` may have standbys."""
    world = World({"a": 4 + standbys}, replace(QUICK, standbys=standbys))
    world.submit("train", replace(TWO, priority=ours))
    world.until(running)
    world.submit("weak", TWO)
    world.run(2).until(partial(whole, "weak"))
    assert len(world.granted("train")) == 2 + standbys
    world.stop_power(world.members("weak")[1], for_good=True)
    return world


def whole(job: str, world: World) -> bool:
    """Say whether all members of a gang are up."""
    return len(world.members(job)) == 2 and all(world.nodes[n].on for n in world.members(job))


def test_a_job_that_cannot_train_gets_the_standby_of_one_that_can() -> None:
    world = hungry()
    assert world.granted("train") == ("a-1", "a-2", "a-3")
    world.until(partial(whole, "weak"))
    assert "a-3" in world.members("weak")
    assert world.told("weak cannot train without it")
    assert world.members("train") == ("a-1", "a-2")


def test_a_standby_stays_with_the_more_important_job() -> None:
    world = hungry(1).run(60)
    assert not whole("weak", world)
    assert world.states()["a-3"] == "standby"


def test_a_spare_is_no_standby_while_another_job_cannot_train_without_it() -> None:
    world = hungry(standbys=0)
    world.policy = QUICK  # from now on a standby is wanted
    world.nodes["a-5"] = SimNode("a")
    world.until(partial(whole, "weak"))
    assert "a-5" in world.members("weak")
    assert world.granted("train") == ("a-1", "a-2")
