"""Stories of a gang, told by the machine of membership in a small world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.runtime import turns as t
from orchestrator.runtime.lineage import Because, Cause, Commit, Fence
from orchestrator.runtime.reports import Stage
from tests.runtime.worlds import World


def formed(names: str, grant: str | None = None, standbys: str = "", **more: Any) -> World:
    """Return a world in which a gang runs its first generation."""
    world = World(names)
    nodes = grant or "".join(name for name in names if name not in standbys)
    world.grant(nodes, standbys, **more)
    world.run_until(lambda: world.runs(nodes, 1))
    return world


def stages(world: World) -> str:
    return " ".join(f"{n.name}:{n.machine.stage.value}" for n in world.nodes.values() if n.alive)


def because(world: World) -> Because:
    latest = world.lineage.latest
    assert latest is not None
    return latest.because


def kinds(world: World, name: str) -> list[str]:
    return [told.kind for told in world.nodes[name].told]


def test_a_gang_forms_when_all_wanted_nodes_are_there() -> None:
    world = World("abc")
    world.grant("ab", "c")
    took = world.run_until(lambda: world.runs("ab", 1))
    assert took < 1.0
    assert stages(world) == "a:running b:running c:standby"
    assert because(world).cause is Cause.START
    assert [name for name, _ in world.proposals] == ["a"]
    assert "generation-formed" in kinds(world, "a")


def test_an_agent_without_grant_is_idle() -> None:
    world = World("a")
    world.run(30.0)
    assert stages(world) == "a:idle"
    assert world.nodes["a"].machine.wake_at < float("inf")  # it goes on reading the register


def test_peers_hand_a_grant_on() -> None:
    world = World("ab")
    world.grant("ab", to="a")
    world.run_until(lambda: world.runs("ab", 1))
    assert world.nodes["b"].disk == world.grants[1]


def test_a_start_waits_ten_seconds_for_a_wanted_node() -> None:
    world = World("abc")
    world.kill("c")
    world.grant("abc", nodes_min=2)
    took = world.run_until(lambda: world.runs("ab", 1))
    assert 10.0 <= took < 12.0


def test_a_dead_rank_ends_in_a_new_generation_of_the_same_nodes() -> None:
    world = formed("ab")
    world.fail_rank("b")
    took = world.run_until(lambda: world.runs("ab", 2))
    assert took < 1.5
    assert (because(world).cause, because(world).fingerprint) == (Cause.RANK_EXIT, "signal 9")
    assert because(world).node == "b"


def test_the_first_failure_is_the_cause_not_what_it_brought() -> None:
    world = formed("ab")
    world.fail_rank("a", "exit 1: connection reset by peer")
    world.fail_rank("b", "signal 9", delay=0.1)
    world.run_until(lambda: world.runs("ab", 2))
    assert because(world).node == "b"


def test_a_lost_node_explains_the_broken_connections_of_the_others() -> None:
    world = formed("abc", "ab", "c")
    world.kill("b")
    world.fail_rank("a", "exit 1: connection reset by peer")
    world.run_until(lambda: world.runs("ac", 2))
    assert (because(world).cause, because(world).node) == (Cause.NODE_LOST, "b")


def test_a_standby_replaces_a_lost_leader() -> None:
    world = formed("abc", "ab", "c")
    world.kill("a")
    took = world.run_until(lambda: world.runs("bc", 2))
    assert took < 2.5
    assert "peer-lost" in kinds(world, "b")
    assert world.nodes["b"].machine.peers_lost == ("a",)


def test_a_smaller_gang_goes_on_and_does_not_restart_for_a_standby_that_comes() -> None:
    world = formed("abc")
    world.kill("c")
    world.run_until(lambda: world.runs("ab", 2))
    world.boot("c")
    world.grant("ab", "c")
    world.run(20.0)
    assert world.runs("ab", 2)
    assert stages(world) == "a:running b:running c:standby"


def test_too_few_left_wait_and_spend_no_generation() -> None:
    world = formed("ab", nodes_min=2)
    world.kill("b")
    world.run_until(lambda: world.nodes["a"].machine.stage is Stage.WAITING)
    world.run(60.0)
    assert len(world.lineage.generations) == 1
    assert "wants 2" in world.nodes["a"].machine.obstacle
    world.boot("b")
    world.grant("ab", nodes_min=2)
    world.run_until(lambda: world.runs("ab", 2))


def test_a_minority_waits_five_seconds_longer() -> None:
    world = formed("abc")
    world.partition("c")
    took = world.run_until(lambda: world.runs("ab", 2))
    assert took < 8.0
    world.cut = set()
    world.run(10.0)
    assert stages(world) == "a:running b:running c:standby"  # its generation went on without it
    alone = formed("abcd")
    alone.kill("b")
    alone.kill("c")
    alone.kill("d")
    took = alone.run_until(lambda: alone.runs("a", 2))
    assert took >= 5.0


def test_a_new_grant_that_keeps_all_members_ends_nothing() -> None:
    world = formed("abc", "ab", "c")
    world.grant("abc", nodes_max=3)
    world.run(30.0)
    assert world.runs("ab", 1)
    assert not world.nodes["a"].ended


def test_a_new_grant_that_leaves_a_member_out_ends_the_generation() -> None:
    world = formed("abc", "ab")
    world.grant("bc", to="abc")
    world.run_until(lambda: world.runs("bc", 2))
    assert because(world).cause is Cause.GRANT
    world.run_until(lambda: stages(world) == "a:revoked b:running c:running")


def test_a_node_that_was_left_out_learns_it_from_its_peers() -> None:
    world = formed("abc", "ab")
    world.grant("bc", to="b")
    world.run_until(lambda: world.runs("bc", 2))
    world.run_until(lambda: stages(world) == "a:revoked b:running c:running")


def test_a_gang_whose_members_are_all_gone_waits_for_a_new_grant() -> None:
    world = formed("abcd", "ab", "cd")
    world.kill("a")
    world.kill("b")
    world.run(60.0)
    assert len(world.lineage.generations) == 1
    assert stages(world) == "c:standby d:standby"
    world.grant("cd")
    took = world.run_until(lambda: world.runs("cd", 2), limit=30.0)
    assert took >= 5.0  # none of the previous members is on this side
    assert because(world).cause is Cause.NODE_LOST


def test_two_sides_do_not_take_the_gang_from_each_other_with_every_grant() -> None:
    world = formed("abcd", "abc", "d", nodes_min=2)
    world.partition("bc")
    world.run_until(lambda: world.runs("bc", 2))
    for number in range(2, 6):  # the controller hears everybody, and tells what it sees
        world.grant("bca", "d", nodes_min=2)
        assert world.nodes["a"].machine.grant == world.grants[number]
        world.run(30.0)
    assert world.runs("bc", 2)
    assert len(world.lineage.generations) == 2


def test_silent_members_are_replaced_once_a_grant_gives_them_up() -> None:
    world = formed("abcd", "abc", "d", nodes_min=2)
    world.partition("bc")
    world.run_until(lambda: world.runs("bc", 2))
    last = world.lineage.latest
    assert last is not None
    for name in "bc":
        world.kill(name)
    world.grant("bca", "d", nodes_min=2, to="ad")
    world.run(60.0)
    assert len(world.lineage.generations) == 2
    world.grant("bca", "d", nodes_min=2, to="ad", abandoned=last.seq)
    world.run_until(lambda: world.runs("ad", 3), limit=30.0)
    assert because(world).cause is Cause.NODE_LOST


def test_a_grant_may_replace_every_member() -> None:
    world = formed("abcd", "ab")
    world.grant("cd", to="abcd")
    world.run_until(lambda: world.runs("cd", 2))
    assert stages(world) == "a:revoked b:revoked c:running d:running"


def test_all_members_finish_together() -> None:
    world = formed("abc")
    for name in "cb":
        world.finish(name)
    world.run(3.0)
    assert stages(world) == "a:running b:running c:running"
    world.finish("a")
    world.run_until(lambda: stages(world) == "a:finished b:finished c:finished")
    world.kill("a")
    world.run(30.0)
    assert stages(world) == "b:finished c:finished"
    assert len(world.lineage.generations) == 1


def test_a_leader_that_finished_and_died_takes_nobody_along() -> None:
    world = formed("abc")
    world.finish("a")
    world.run(1.0)
    world.kill("a")
    world.run(1.0)
    world.finish("b")
    world.finish("c")
    world.run_until(lambda: stages(world) == "b:finished c:finished")
    assert len(world.lineage.generations) == 1


def test_a_failure_after_others_finished_runs_all_again() -> None:
    world = formed("ab")
    world.finish("a")
    world.fail_rank("b", "exit 1")
    world.run_until(lambda: world.runs("ab", 2))


def test_the_agent_of_a_member_is_another_one() -> None:
    world = formed("ab")
    world.kill("b")
    world.boot("b")  # same node, another address: the grant does not mean it yet
    world.run_until(lambda: world.runs("a", 2))
    assert world.nodes["b"].machine.stage is Stage.IDLE
    world.grant("ab")
    world.run(5.0)
    assert stages(world) == "a:running b:standby"


def test_budgets_per_cause_are_spent() -> None:
    world = formed("ab", budget={"rank-exit": 1})
    world.fail_rank("a", "exit 1")
    world.run_until(lambda: world.runs("ab", 2))
    world.fail_rank("a", "exit 1")
    world.run_until(lambda: stages(world) == "a:failed b:failed")
    failure = world.nodes["a"].machine.failure
    assert failure is not None
    assert failure.fingerprint == "exit 1"
    assert "failed" in kinds(world, "a")
    world.run(30.0)
    assert len(world.lineage.generations) == 2


def test_the_number_of_generations_is_bounded() -> None:
    world = formed("a", generations_max=2)
    world.fail_rank("a")
    world.run_until(lambda: world.runs("a", 2))
    world.fail_rank("a")
    world.run_until(lambda: stages(world) == "a:failed")


def test_a_generation_resumes_from_the_last_commit_and_steps_down_twice_the_same_failure() -> None:
    world = formed("ab")
    world.commit("a")
    world.commit("a")
    world.fail_rank("b", "exit 1: nan")
    world.run_until(lambda: world.runs("ab", 2))
    head = world.lineage.commits[-1]
    assert world.lineage.generations[-1].resume == head.seq
    world.fail_rank("b", "exit 1: nan")
    world.run_until(lambda: world.runs("ab", 3))
    assert world.lineage.generations[-1].resume == head.parent


def test_a_checkpoint_that_does_not_verify_is_stepped_over() -> None:
    world = formed("ab")
    world.commit("a")
    world.commit("a")
    first, second = world.lineage.commits
    world.fail_rank("b")
    world.run_until(lambda: world.runs("ab", 2))
    failed = Because(Cause.VERIFICATION, None, "exit 92", "a", 0, commit=second.seq)
    world.feed(world.nodes["a"], t.RanksTroubled(failed, world.now))
    world.fail_rank("b", "exit 1: connection reset")
    world.run_until(lambda: world.runs("ab", 3))
    assert world.lineage.generations[-1].resume == first.seq


def test_a_grant_may_bound_what_is_resumed_from() -> None:
    world = formed("a")
    world.commit("a")
    world.commit("a")
    world.grant("a", resume_max=world.lineage.commits[0].seq)
    world.fail_rank("a")
    world.run_until(lambda: world.runs("a", 2))
    assert world.lineage.generations[-1].resume == world.lineage.commits[0].seq


def test_a_foreign_fence_stops_everything() -> None:
    world = formed("ab")
    world.write(Fence(world.lineage.next_seq, "f2", 2, 2, 0.0))
    took = world.run_until(lambda: stages(world) == "a:revoked b:revoked")
    assert took < 2.0
    assert kinds(world, "a").count("foreign-fence") == 1
    world.run(30.0)
    assert not world.lineage.generations[1:]


def test_nothing_starts_before_the_fence_of_its_own_attempt() -> None:
    world = World("a")
    world.records.clear()
    world.lineage = type(world.lineage)()
    world.grant("a")
    world.run(20.0)
    assert not world.lineage.generations
    world.write(Fence(1, "f1", 1, 1, 0.0))
    world.run_until(lambda: world.runs("a", 1))


def test_a_record_whose_answer_got_lost_is_found_by_reading() -> None:
    world = World("ab")
    world.hidden.add("a")
    world.grant("ab")
    world.run_until(lambda: world.runs("ab", 1))
    assert len(world.lineage.generations) == 1


def test_members_that_do_not_join_in_time_are_left_out() -> None:
    world = formed("abc")
    world.fail_rank("a")
    world.run_until(lambda: len(world.proposals) == 2)
    world.cut = {frozenset("ac"), frozenset("bc")}
    world.unreachable.add("c")
    world.run_until(lambda: world.runs("ab"), limit=40.0)
    assert because(world).cause in (Cause.JOIN_FAILED, Cause.NODE_LOST)


def test_the_next_member_proposes_if_the_first_cannot_reach_the_register() -> None:
    world = formed("ab")
    world.unreachable.add("a")
    world.run(10.0)
    world.fail_rank("b")
    world.run_until(lambda: world.lineage.latest is not None and world.lineage.latest.number == 2)
    assert world.proposals[-1][0] == "b"


def test_without_the_register_only_a_whole_gang_forms_again() -> None:
    world = formed("ab")
    world.unreachable |= {"a", "b"}
    world.run(10.0)
    world.fail_rank("b")
    world.run(0.1)
    world.run_until(lambda: all(n.machine.stage is Stage.RUNNING for n in world.nodes.values()))
    generation = world.nodes["a"].running
    assert generation is not None
    assert generation.number == 2
    assert world.nodes["b"].running == generation
    assert len(world.lineage.generations) == 1  # it can commit nothing yet
    world.unreachable.clear()
    world.run_until(lambda: len(world.lineage.generations) == 2)
    world.run(10.0)
    assert world.lineage.generations[-1].mark == generation.mark
    assert not [mark for node in world.nodes.values() for mark, _ in node.ended[1:]]


def test_without_the_register_a_gang_that_lost_a_member_waits() -> None:
    world = formed("ab")
    world.unreachable |= {"a", "b"}
    world.run(10.0)
    world.kill("b")
    world.run(60.0)
    assert stages(world) == "a:waiting"
    assert "b is missing" in world.nodes["a"].machine.obstacle
    world.feed(world.nodes["a"], t.Gone(world.nodes["b"].member))
    world.run_until(lambda: stages(world) == "a:running")


def test_a_generation_without_record_that_finds_another_one_first_stops() -> None:
    world = formed("ab")
    world.unreachable |= {"a", "b"}
    world.run(10.0)
    world.fail_rank("b")
    world.run(0.1)
    world.run_until(lambda: all(n.machine.stage is Stage.RUNNING for n in world.nodes.values()))
    seq, under = world.lineage.next_seq, world.lineage.ruler
    assert under is not None
    world.write(Commit(seq, "late", under, 1, None, "m", "d", 0.0, "a"))
    world.unreachable.clear()
    world.run_until(lambda: world.settled() and len(world.lineage.generations) == 2)
    assert world.lineage.generations[-1].resume == seq
    assert "generation-void" in kinds(world, "a")


def test_without_any_register_each_generation_needs_a_grant() -> None:
    world = World("abc", register=False)
    world.grant("ab", nodes_min=2)
    world.run_until(lambda: world.runs("ab"))
    world.fail_rank("b")
    world.run_until(lambda: stages(world) == "a:waiting b:waiting c:idle")
    world.run(30.0)
    assert stages(world) == "a:waiting b:waiting c:idle"
    world.grant("bc", nodes_min=2, to="abc")
    world.run_until(lambda: world.runs("bc"))
    generation = world.nodes["b"].running
    assert generation is not None
    assert generation.number == 2
    assert world.nodes["a"].machine.stage is Stage.REVOKED


def test_alone_for_too_long_it_stops_and_comes_back() -> None:
    world = World("a", stop_after=20.0)
    world.grant("a")
    world.run_until(lambda: world.runs("a", 1))
    world.unreachable.add("a")
    world.run(15.0)
    world.feed(world.nodes["a"], t.Confirmed(world.now))  # the controller has our last answer
    world.run(15.0)
    assert stages(world) == "a:running"
    world.run(8.0)
    assert stages(world) == "a:waiting"
    assert world.nodes["a"].running is None
    assert "alone" in kinds(world, "a")
    world.unreachable.clear()
    world.run_until(lambda: world.runs("a", 2))


def test_told_to_stop_nobody_forms_without_it_at_once() -> None:
    world = formed("ab")
    for name in "ab":
        world.feed(world.nodes[name], t.StopAsked("enough"))
        world.feed(world.nodes[name], t.StopAsked("enough"))
        world.run(2.0)
    assert [n.running for n in world.nodes.values()] == [None, None]
    assert len(world.lineage.generations) == 1
    assert stages(world) == "a:waiting b:waiting"


def test_a_member_that_was_told_to_stop_and_stays_away_is_lost_in_the_end() -> None:
    world = formed("ab")
    world.feed(world.nodes["b"], t.StopAsked("enough"))
    world.run(1.0)
    world.kill("b")
    world.run(10.0)
    assert stages(world) == "a:running"
    world.run_until(lambda: world.runs("a", 2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"job": "other"}, "it is for other.1"),
        ({"attempt": 2}, "it is for j.2"),
        ({"number": 2, "token": 0}, "token 0 is below 1"),
        ({"nodes_max": 9}, "grant 1 was accepted before"),
    ],
)
def test_a_grant_is_refused_for_a_reason(change: dict[str, Any], says: str) -> None:
    world = formed("a")
    grant = replace(world.grants[1], **change)
    objection = world.nodes["a"].machine.objection(grant)
    assert objection is not None
    assert says in objection
    world.feed(world.nodes["a"], t.Granted(grant))
    assert world.nodes["a"].machine.grant == world.grants[1]


def test_the_same_grant_again_is_no_news() -> None:
    world = formed("a")
    assert world.give("a", world.grants[1]) is None
    assert kinds(world, "a").count("grant-accepted") == 1


def test_a_mute_peer_counts_as_silent_after_five_seconds() -> None:
    world = formed("ab")
    world.nodes["b"].machine.take(t.Tick(), world.now)
    world.lossy = 1.0
    took = world.run_until(lambda: bool(world.nodes["a"].ended))
    assert 4.5 <= took <= 6.5
