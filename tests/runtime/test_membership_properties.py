"""What holds whatever happens: agents killed, words lost, doubled and late, partitions, grants.

`worlds.py` checks at every step that no node joins under a lower grant or without a seat, that no
standby proposes, and that nobody runs two generations. Here chaos is drawn, and peace follows.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.runtime import turns as t
from orchestrator.runtime.lineage import Cause
from orchestrator.runtime.words import Phase
from tests.runtime.worlds import World

NAMES = "abcde"
ROOMY = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

names = st.sampled_from(NAMES)
sides = st.sets(names, min_size=1, max_size=4).map(lambda side: "".join(sorted(side)))
acts = st.one_of(
    st.tuples(st.just("kill"), names),
    st.tuples(st.just("boot"), names),
    st.tuples(st.just("fail"), names),
    st.tuples(st.just("finish"), names),
    st.tuples(st.just("commit"), names),
    st.tuples(st.just("partition"), sides),
    st.tuples(st.just("heal"), names),
    st.tuples(st.just("lossy"), st.sampled_from([0.0, 0.2, 0.7])),
    st.tuples(st.just("hide"), names),
    st.tuples(st.just("cut-off"), sides),
    st.tuples(st.just("grant"), st.tuples(sides, sides, sides)),
    st.tuples(st.just("late-grant"), st.tuples(names, st.integers(1, 5))),
    st.tuples(st.just("gone"), names),
)
chaos = st.lists(st.tuples(acts, st.sampled_from([0.0, 0.05, 0.5, 2.0, 7.0, 20.0])), max_size=20)


def act(world: World, what: tuple[str, object]) -> None:  # noqa: C901 - a flat table of acts
    verb, value = what
    match verb, value:
        case "kill", str(name):
            world.kill(name)
        case "boot", str(name):
            if not world.nodes[name].alive:
                world.boot(name)
        case "fail", str(name):
            world.fail_rank(name, "exit 1: x")
        case "finish", str(name):
            world.finish(name)
        case "commit", str(name):
            world.commit(name)
        case "partition", str(side):
            world.partition(side)
        case "heal", _:
            world.cut, world.unreachable = set(), set()
        case "lossy", float(share):
            world.lossy = world.doubled = share
            world.delay = (0.001, 2.0 * share + 0.01)
        case "hide", str(name):
            world.hidden.add(name)
        case "cut-off", str(side):
            world.unreachable = set(side)
        case "grant", (str(nodes), str(standbys), str(to)):
            spare = "".join(name for name in standbys if name not in nodes)
            world.grant(nodes, spare, to=to)
        case "late-grant", (str(name), int(number)):
            if number in world.grants:
                world.give(name, world.grants[number])
        case "gone", str(name):
            for other in world.nodes.values():
                if not world.nodes[name].alive:
                    world.feed(other, t.Gone(world.nodes[name].member))
        case _:
            raise AssertionError(what)


def check_records(world: World) -> None:
    """Check what the register says afterwards."""
    for before, after in zip(
        world.lineage.generations, world.lineage.generations[1:], strict=False
    ):
        assert after.number > before.number  # one that never got its record leaves a gap
        assert after.because.cause is not Cause.START
        assert after.grant >= before.grant
        stays = set(after.members) & set(before.members)
        assert stays or after.grant > before.grant, "nobody of the last generation led on"


def check_reasons(world: World) -> None:
    """No generation was ended without a cause."""
    for node in world.nodes.values():
        assert all(why for _, why in node.ended)


@ROOMY
@given(st.integers(0, 2**16), chaos)
def test_after_any_chaos_a_quiet_network_brings_the_gang_back(
    seed: int, story: list[tuple[tuple[str, object], float]]
) -> None:
    world = World(NAMES, seed=seed)
    world.grant("abc", "de")
    for what, pause in story:
        act(world, what)
        world.run(pause)
    check_records(world)

    world.cut, world.unreachable, world.hidden = set(), set(), set()
    world.lossy, world.doubled, world.delay = 0.0, 0.0, (0.001, 0.01)
    for name in "abc":
        if not world.nodes[name].alive or world.nodes[name].machine.stage.value == "finished":
            world.kill(name)
            world.boot(name)
    world.run(1.0)
    done = [n for n in world.nodes.values() if n.alive and n.machine.stage.value == "finished"]
    if done:  # it has reached its end: nothing is to come back
        return
    world.grant("abc", to="abcde")
    world.run_until(world.settled, limit=60.0)
    check_records(world)
    check_reasons(world)

    ended = {name: len(node.ended) for name, node in world.nodes.items()}
    world.run(30.0)
    assert world.settled()
    assert {name: len(node.ended) for name, node in world.nodes.items()} == ended
    assert {m.node for m in world.lineage.generations[-1].members} <= set("abc")


@ROOMY
@given(st.integers(0, 2**16), st.floats(0.0, 0.3), st.lists(names, min_size=1, max_size=3))
def test_a_healthy_generation_is_never_ended(seed: int, lossy: float, commits: list[str]) -> None:
    world = World("abcd", seed=seed)
    world.grant("abc", "d")
    world.run_until(world.settled)
    world.lossy = world.doubled = lossy
    world.delay = (0.001, 0.5)
    for name in commits:
        if name in "abc":
            world.commit(name)
        world.run(20.0)
    assert len(world.lineage.generations) == 1
    assert not [node.name for node in world.nodes.values() if node.ended]


@ROOMY
@given(st.integers(0, 2**16), names.filter(lambda name: name in "abc"), st.floats(0.0, 3.0))
def test_an_agent_may_die_at_any_instant_of_a_repair(seed: int, victim: str, after: float) -> None:
    world = World("abcd", seed=seed)
    world.grant("abc", "d")
    world.run_until(world.settled)
    world.fail_rank("b", "exit 1")
    world.run(after)
    world.kill(victim)
    rest = set("abcd") - {victim}
    took = world.run_until(lambda: world.settled() and world.runs("".join(rest)), limit=60.0)
    assert took < 15.0
    check_records(world)


@ROOMY
@given(st.integers(0, 2**16), sides)
def test_two_sides_of_a_partition_never_both_commit(seed: int, side: str) -> None:
    world = World(NAMES, seed=seed)
    world.grant("abcde")
    world.run_until(world.settled)
    world.partition(side)
    for _ in range(40):
        world.run(0.5)
        able = {
            node.running.seq
            for node in world.nodes.values()
            if node.running is not None and node.running.seq == world.lineage.ruler
        }
        assert len(able) <= 1
    world.cut = set()
    world.run_until(world.settled)
    world.run(20.0)
    assert world.settled()
    outside = set(NAMES) - {member.node for member in world.lineage.generations[-1].members}
    assert all(world.nodes[name].machine.phase is Phase.CLEAR for name in outside)
