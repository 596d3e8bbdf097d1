"""Rails of NICs: each is localised by itself, and the answer names the cards."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from orchestrator.core.localise import Culprits, Localisation, Outcome, PairTest
from orchestrator.core.rails import joined

RAILS = tuple(f"mlx5_{number}" for number in range(8))
NODES = tuple(f"n{number:02}" for number in range(16))
NOTHING = Culprits(Outcome.NOTHING, posterior=0.999)


def localised(bad: frozenset[str], dice: random.Random) -> Culprits:
    """Localise one rail in a world where 5 % of the tests lie either way."""
    state = Localisation(NODES)
    while pairs := state.next_round():
        state = state.after(
            PairTest(*pair, failed=bool(bad.intersection(pair)) is not (dice.random() < 0.05))
            for pair in pairs
        )
    return state.conclude()


def found(bad: Mapping[str, set[str]], seed: int) -> Culprits:
    dice = random.Random(seed)
    return joined({one: localised(frozenset(bad.get(one, ())), dice) for one in RAILS})


@pytest.mark.parametrize("seed", range(25))
def test_bad_rails_are_named_with_their_nodes(seed: int) -> None:
    dice = random.Random(f"world {seed}")
    bad: dict[str, set[str]] = {}
    for node in dice.sample(NODES, dice.randint(1, 3)):
        bad.setdefault(dice.choice(RAILS), set()).add(node)
    said = found(bad, seed)
    assert said.outcome in (Outcome.FOUND, Outcome.UNSURE)
    if said.outcome is Outcome.FOUND:
        named = {(node, rail) for node, rails in said.rails.items() for rail in rails}
        assert named == {(node, rail) for rail, nodes in bad.items() for node in nodes}
        assert said.explicit


def test_it_is_nearly_always_sure() -> None:
    said = [found({RAILS[seed % 8]: {NODES[seed % 16]}}, seed) for seed in range(25)]
    assert sum(one.outcome is Outcome.FOUND for one in said) >= 24


def test_nothing_is_named_where_nothing_is_bad() -> None:
    assert [found({}, seed).nodes for seed in range(10)] == [frozenset()] * 10


def test_a_node_that_is_bad_on_every_rail_is_bad_itself() -> None:
    said = found({rail: {"n03"} for rail in RAILS}, 1)
    assert (said.outcome, said.nodes) == (Outcome.FOUND, frozenset({"n03"}))
    assert not said.rails


@pytest.mark.parametrize("open_", [Outcome.SHARED, Outcome.UNSURE])
def test_one_rail_that_is_not_decided_leaves_the_whole_so(open_: Outcome) -> None:
    bad = Culprits(Outcome.FOUND, frozenset({"n01"}), None, 0.995)
    said = joined({"a": bad, "b": Culprits(open_, reason="who knows"), "c": NOTHING})
    assert (said.outcome, said.nodes) == (open_, frozenset())
    assert not said.rails
    assert said.reason == "b: who knows"


def test_the_least_sure_rail_is_how_sure_the_whole_is() -> None:
    bad = Culprits(Outcome.FOUND, frozenset({"n01"}), "leaf2", 0.995, {"n01": 0.995}, "n01")
    said = joined({"a": bad, "b": NOTHING})
    assert (said.posterior, said.leaf, said.rails) == (0.995, "leaf2", {"n01": ("a",)})
    assert said.suspicion == {"n01": 0.995}
