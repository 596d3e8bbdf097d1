"""`look_again_at` names the next moment at which the same snapshot would say something else."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.decisions import LedgerOnly
from orchestrator.core.enact import enact, intend
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import JobSpec
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import reconcile
from tests.core.test_reconcile import EVENTS, happen
from tests.core.world import World


def carried_on(fleet: Fleet, policy: Policy) -> Fleet:
    for decision in reconcile(fleet, policy).decisions:
        if isinstance(decision, LedgerOnly):
            fleet = enact(fleet, decision, fleet.now)
        else:
            fleet = intend(fleet, decision, token=1, limit=policy.intent_limit)
    return fleet


@pytest.mark.parametrize("seed", range(8))
def test_before_that_moment_nothing_new_is_decided(seed: int) -> None:
    dice = random.Random(seed)
    world = World({"a": 4, "b": 3})
    world.submit("train", JobSpec(2, 2, register="/r" if seed % 2 else None))
    world.submit("other", JobSpec(1, 2, register="/s"), steps=25)
    world.run(dice.randint(1, 14))
    for _ in range(6):
        happen(world, dice.choice(EVENTS), dice.choice(sorted(world.nodes)))
        world.run(dice.randint(1, 4))
        fleet = carried_on(world.fleet, world.policy)
        until = reconcile(fleet, world.policy).look_again_at
        span = until - fleet.now if until is not None else timedelta(days=30)
        for share in (0.01, 0.5, 0.999):
            later = replace(fleet, now=fleet.now + share * span)
            assert reconcile(later, world.policy).decisions == ()


def test_a_quiet_fleet_is_looked_at_again_only_when_something_is_due() -> None:
    world = World({"a": 1})
    world.run(2)
    until = reconcile(carried_on(world.fleet, world.policy), world.policy).look_again_at
    assert until == world.fleet.nodes[next(iter(world.fleet.nodes))].since + world.policy.burn_in
