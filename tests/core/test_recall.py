"""What is recalled changes nothing: the same is decided with and without it, and as soon.

`World.tick` compares both at every second of every story. Here the snapshots change in ways that no
world would change them, between any two looks.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import JobSpec
from orchestrator.core.nodes import Cordon
from orchestrator.core.observations import OrderKind
from orchestrator.core.parts import EVERYTHING
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import PHASES, Recall, new_recall, reconcile
from tests.core.test_look import carried_on
from tests.core.test_reconcile import EVENTS, happen, shuffled
from tests.core.world import World


def busy(seed: int) -> World:
    world = World({"a": 4, "b": 3, "c": 2})
    world.submit("train", JobSpec(2, 2, register="/r" if seed % 2 else None))
    world.submit("other", JobSpec(1, 2, register="/s", priority=1), steps=25)
    world.submit("third", JobSpec(2, 3, register="/t"))
    return world.run(12)


def disturbed(fleet: Fleet, dice: random.Random) -> Fleet:
    """Return another snapshot: one kind of part is replaced, dropped or made anew."""
    name = dice.choice(sorted(fleet.nodes))
    node, belief = fleet.nodes[name], fleet.beliefs.nodes[name]
    cordon = Cordon("operator:ann", "hers", fleet.now)
    beliefs = fleet.beliefs
    match dice.randint(0, 9):
        case 0:
            return replace(
                fleet, now=fleet.now + timedelta(seconds=dice.choice((1, 9, 600, 90_000)))
            )
        case 1:
            return replace(fleet, now=fleet.now - timedelta(seconds=3))
        case 2:
            lifted = replace(node, cordon=None if node.cordon is not None else cordon)
            return replace(fleet, nodes={**fleet.nodes, name: lifted})
        case 3:
            cut = replace(
                belief, unreached_since=fleet.now - timedelta(seconds=dice.choice((1, 99)))
            )
            return replace(fleet, beliefs=replace(beliefs, nodes={**beliefs.nodes, name: cut}))
        case 4:
            return replace(fleet, used=fleet.used[dice.randint(0, 2) :])
        case 5:
            return replace(fleet, incidents=fleet.incidents[1:])
        case 6:
            return replace(fleet, settled=(), intents=fleet.intents[:1])
        case 7:
            register = dice.choice(sorted(beliefs.registers) or ["none"])
            kept = {job: one for job, one in beliefs.registers.items() if job != register}
            return replace(fleet, beliefs=replace(beliefs, registers=kept))
        case 8:
            return shuffled(fleet, dice.randint(0, 99))
        case _:
            clusters: tuple[Cluster, ...] = tuple(reversed(fleet.clusters))[dice.randint(0, 1) :]
            return replace(fleet, clusters=clusters)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_changes_between_two_looks_the_same_is_decided(seed: int) -> None:
    dice, recall = random.Random(seed), new_recall()
    world = busy(seed)
    policies = [world.policy] * 9 + [replace(world.policy, quarantine_share=1.0, standbys=2)]
    for _ in range(25):
        happen(world, dice.choice(EVENTS), dice.choice(sorted(world.nodes)))
        world.run(dice.randint(0, 3))
        fleet = world.fleet
        for _ in range(4):
            fleet = (
                disturbed(fleet, dice) if dice.random() < 0.7 else carried_on(fleet, world.policy)
            )
            policy = dice.choice(policies)
            assert reconcile(fleet, policy, recall) == reconcile(fleet, policy), f"seed {seed}"


def looked(fleet: Fleet, policy: Policy) -> Recall:
    recall = new_recall()
    reconcile(fleet, policy, recall)
    return recall


def test_a_decision_that_was_not_carried_out_is_decided_again() -> None:
    world = busy(1)
    world.fault("a-1")
    world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(seconds=1))
    world.order(OrderKind.DRAIN, "b-1")
    for _ in range(3):
        world.tick(cut=0)
    first = reconcile(world.fleet, world.policy)
    recall = looked(world.fleet, world.policy)
    assert first.decisions
    assert reconcile(world.fleet, world.policy, recall) == first
    assert reconcile(world.fleet, world.policy, recall) == first


def test_an_error_while_looking_is_not_remembered() -> None:
    world = busy(1)
    recall = looked(world.fleet, world.policy)
    with pytest.raises(AttributeError):
        reconcile(replace(world.fleet, nodes={"a-1": object()}), world.policy, recall)  # type: ignore[dict-item]
    assert reconcile(world.fleet, world.policy, recall) == reconcile(world.fleet, world.policy)


def test_no_part_rests_on_the_whole_snapshot() -> None:
    """It would be right, and be done again at every look: read through a method of `Look`."""
    world = busy(1)
    for event in EVENTS:
        happen(world, event, "a-1")
        world.run(4)
        recall = looked(world.fleet, world.policy)
        look = recall.take(world.fleet, world.policy)
        resting = look.resting_on(EVERYTHING)
        assert not resting, f"{', '.join(sorted({phase.name for phase, _ in resting}))} reads it"
    assert len({phase.name for phase in PHASES}) == len(PHASES)
