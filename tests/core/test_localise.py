"""Localisation names who makes pairs fail: all of them, nobody else, and only when it is sure."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.localisation import World, localise, two_rounds, world
from orchestrator.core.localise import (
    Culprits,
    Localisation,
    Noise,
    Outcome,
    PairTest,
    rounds_max,
)

TRIALS = {4: 40, 6: 60, 7: 60, 9: 60, 16: 30, 33: 30, 64: 20, 127: 10, 256: 10, 1000: 4}


def right(found: Culprits, there: World) -> bool:
    return found.outcome is Outcome.FOUND and found.nodes == there.bad


@pytest.mark.parametrize("count", TRIALS)
def test_the_culprits_are_named_and_nobody_else(count: int) -> None:
    """The whole table, a thousand trials for each, is `python -m bench.localisation`."""
    wrong = []
    for seed in range(TRIALS[count]):
        there = world(count, seed, bad=1 if count == 4 else None)
        found, state = localise(there)
        assert state.rounds <= rounds_max(count)
        assert not found.nodes - there.bad, (count, seed, found)
        wrong += [] if right(found, there) else [(seed, found.outcome.value)]
    assert len(wrong) <= 0.05 * TRIALS[count], wrong


@pytest.mark.parametrize("count", [9, 16, 64, 257])
@pytest.mark.parametrize("cause", ["five", "everything", "half"])
def test_a_cause_that_all_share_accuses_nobody(count: int, cause: str) -> None:
    named = 0
    for seed in range(5):
        there = world(count, seed, bad=5 if cause == "five" else 0)
        there.fails = {"five": None, "everything": 0.95, "half": 0.5}[cause]
        found, _ = localise(there)
        named += bool(found.nodes)
        assert found.outcome is not Outcome.NOTHING
    assert named == 0


@pytest.mark.parametrize("count", [4, 9, 64])
def test_healthy_nodes_are_left_alone(count: int) -> None:
    for seed in range(10):
        found, _ = localise(world(count, seed, bad=0))
        assert not found.nodes
        assert found.outcome in (Outcome.NOTHING, Outcome.UNSURE)


def test_two_nodes_cannot_be_told_apart() -> None:
    there = world(2, 1, bad=1)
    found, state = localise(there)
    assert found.outcome is Outcome.UNSURE
    assert not found.nodes
    assert state.rounds <= rounds_max(2)


def test_a_bad_leaf_is_named_as_one() -> None:
    there = world(64, 0, bad=1)
    there.bad = there.leaves["leaf2"]
    found, _ = localise(there)
    assert (found.leaf, found.nodes) == ("leaf2", there.leaves["leaf2"])
    assert "leaf2" in found.reason


def test_what_is_named_is_evidence_enough_and_what_is_unsure_is_not() -> None:
    found, _ = localise(world(16, 3, bad=2))
    assert found.explicit
    assert found.posterior >= 0.99
    unsure, _ = localise(world(2, 1, bad=1))
    assert not unsure.explicit


def test_the_two_round_rule_does_worse_in_the_same_worlds() -> None:
    ours = peer = 0
    for seed in range(30):
        ours += right(localise(world(33, seed))[0], world(33, seed))
        peer += two_rounds(world(33, seed)) == world(33, seed).bad
    assert ours >= 29
    assert peer < ours


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6), st.data())
def test_rounds_are_of_disjoint_pairs_and_end(count: int, seed: int, data: st.DataObject) -> None:
    """Whatever the tests say, also if some pairs could not be tested at all."""
    there = world(count, seed, bad=min(count - 1, seed % 4))
    state = Localisation(there.nodes, there.leaves)
    while pairs := state.next_round():
        named = [one for pair in pairs for one in pair]
        assert len(named) == len(set(named))
        lost = data.draw(st.integers(0, len(pairs)))
        state = state.after(there.test(*pair) for pair in pairs[lost:])
        assert state.rounds <= rounds_max(count)
    found = state.conclude()
    assert found.nodes <= set(there.nodes)
    assert all(0 <= one <= 1 for one in found.suspicion.values())


def test_the_same_tests_say_the_same() -> None:
    first, again = localise(world(33, 7)), localise(world(33, 7))
    assert first == again


def test_without_tests_nothing_is_said() -> None:
    assert Localisation(("a", "b", "c")).conclude().outcome is Outcome.UNSURE
    assert Localisation(("a",)).next_round() == ()


@pytest.mark.parametrize(
    ("nodes", "leaves"), [(("a", "a"), {}), (("a", "b"), {"l": frozenset({"c"})})]
)
def test_what_makes_no_sense_is_refused(
    nodes: tuple[str, ...], leaves: dict[str, frozenset[str]]
) -> None:
    with pytest.raises(ValueError, match=r"twice|not tested"):
        Localisation(nodes, leaves)


def test_tests_that_hardly_lie_are_believed_at_once() -> None:
    quiet = Noise(alarm=0.001, miss=0.001)
    state = Localisation(tuple("abcdefgh"), noise=quiet)
    rounds = 0
    while pairs := state.next_round():
        state = state.after(PairTest(a, b, "c" in (a, b)) for a, b in pairs)
        rounds += 1
    assert state.conclude().nodes == {"c"}
    assert rounds <= 4
