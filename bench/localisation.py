"""Localisation in worlds where the culprit is known, beside the two-round rule of DLRover.

`python -m bench.localisation 1000 6 64` runs so many seeded trials for each number of nodes and
prints a line each: exact sets, false accusations, rounds; and what two rounds of pairing (each node
with a neighbour, then those that failed with those that passed; accused is who failed twice) make
of the very same worlds, with the same noise.
"""

from __future__ import annotations

import math
import random
import sys
from dataclasses import dataclass, field

from orchestrator.core.localise import (
    Culprits,
    Localisation,
    Noise,
    Outcome,
    PairTest,
    rounds_max,
)

SIZES = (6, 7, 9, 16, 33, 64, 127, 256, 1000)


@dataclass
class World:
    """Nodes under leaf switches, some of them bad, and a noisy test of pairs."""

    nodes: tuple[str, ...]
    leaves: dict[str, frozenset[str]]
    bad: frozenset[str]
    dice: random.Random
    noise: Noise = field(default_factory=Noise)
    fails: float | None = None  #: if set, every pair fails with this chance: a shared cause

    def test(self, left: str, right: str) -> PairTest:
        """Test one pair."""
        touched = left in self.bad or right in self.bad
        chance = 1 - self.noise.miss if touched else self.noise.alarm
        return PairTest(left, right, self.dice.random() < (self.fails or chance))


def world(count: int, seed: int, bad: int | None = None) -> World:
    """Return a seeded world: one to three bad nodes, or one bad leaf of a quarter at most."""
    dice = random.Random(f"{count}-{seed}")
    nodes = tuple(f"n{one:04d}" for one in range(count))
    size = max(1, count // 4)
    leaves = {
        f"leaf{start // size}": frozenset(nodes[start : start + size])
        for start in range(0, count, size)
    }
    sort = dice.choice([1, 2, 3, 0]) if bad is None else bad
    culprits = frozenset(dice.sample(nodes, sort)) if sort else dice.choice([*leaves.values()])
    return World(nodes, leaves, culprits if bad != 0 else frozenset(), dice)


def localise(there: World) -> tuple[Culprits, Localisation]:
    """Run rounds until nothing is left to test."""
    state = Localisation(there.nodes, there.leaves, there.noise)
    while pairs := state.next_round():
        state = state.after(there.test(*pair) for pair in pairs)
    return state.conclude(), state


def two_rounds(there: World) -> frozenset[str]:
    """Return whom the two-round rule accuses."""
    nodes = list(there.nodes)
    failed = dict.fromkeys(nodes, 0)

    def run(groups: list[list[str]]) -> None:
        for group in groups:
            tests = [there.test(group[0], other) for other in group[1:]]
            if any(one.failed for one in tests):
                for one in group:
                    failed[one] += 1

    def paired(order: list[str]) -> list[list[str]]:
        groups = [order[at : at + 2] for at in range(0, len(order) - 1, 2)]
        if len(order) % 2:
            groups[-1].append(order[-1])
        return groups

    run(paired(nodes))
    order = sorted(nodes, key=lambda one: failed[one])
    half = len(order) // 2
    mixed = [one for pair in zip(order[:half], reversed(order), strict=False) for one in pair]
    run(paired([*mixed, *([order[half]] if len(order) % 2 else [])]))
    return frozenset(one for one in nodes if failed[one] == 2)


def row(count: int, trials: int) -> dict[str, float]:
    """Return the shares of one number of nodes."""
    exact = false = unsure = peer_exact = peer_false = rounds = most = 0
    for seed in range(trials):
        there = world(count, seed)
        found, state = localise(there)
        exact += found.outcome is Outcome.FOUND and found.nodes == there.bad
        false += bool(found.nodes - there.bad)
        unsure += found.outcome is not Outcome.FOUND
        rounds, most = rounds + state.rounds, max(most, state.rounds)
        accused = two_rounds(world(count, seed))
        peer_exact += accused == there.bad
        peer_false += bool(accused - there.bad)
    return {
        "nodes": count,
        "trials": trials,
        "exact": exact / trials,
        "false accusation": false / trials,
        "says unsure": unsure / trials,
        "rounds, mean": rounds / trials,
        "rounds, most": most,
        "rounds, allowed": math.floor(rounds_max(count)),
        "two rounds: exact": peer_exact / trials,
        "two rounds: false accusation": peer_false / trials,
    }


def main() -> None:
    """Print a line for each number of nodes."""
    trials, *counts = map(int, sys.argv[1:] or ["1000"])
    for count in counts or SIZES:
        said = row(count, trials)
        print(", ".join(f"{name} {value:g}" for name, value in said.items()), flush=True)


if __name__ == "__main__":
    main()
