"""Properties of the one deciding function, on every snapshot that random histories lead to."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core.decisions import LedgerOnly, MoveNode
from orchestrator.core.enact import enact, intend
from orchestrator.core.fleet import Fleet
from orchestrator.core.history import RepairStep
from orchestrator.core.jobs import JobSpec, WhenAlone
from orchestrator.core.nodes import MOVES, SEATED, NodeState
from orchestrator.core.observations import OrderKind
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import reconcile
from tests.core.world import QUICK, World

EVENTS = (
    *("none", "fault", "power", "gone", "kill", "proof", "cut", "mend", "suspect", "boot"),
    *("stubborn", "swapped", "unlisted"),
)
POLICIES = (
    QUICK,
    replace(QUICK, doubt_max=0.02, relapse_mean=timedelta(seconds=4)),
    replace(QUICK, fleet_repairs_per_hour=1, relapse_window=timedelta(seconds=9)),
)
CANS = ((), ("reboot",), tuple(step.value for step in RepairStep))
ORDERS = tuple(OrderKind)
T = TypeVar("T")


def settled(fleet: Fleet, policy: Policy) -> list[object]:
    """Enact and intend what is decided, and return what is decided after that."""
    for decision in reconcile(fleet, policy).decisions:
        if isinstance(decision, LedgerOnly):
            fleet = enact(fleet, decision, fleet.now)
        else:
            fleet = intend(fleet, decision, token=1, limit=policy.intent_limit)
    return list(reconcile(fleet, policy).decisions)


def shuffled(fleet: Fleet, seed: int) -> Fleet:
    """Return the same fleet, listed in another order."""
    dice = random.Random(seed)

    def mix(things: list[T]) -> list[T]:
        dice.shuffle(things)
        return things

    return replace(
        fleet,
        clusters=tuple(mix(list(fleet.clusters))),
        nodes=dict(mix(list(fleet.nodes.items()))),
        jobs=dict(mix(list(fleet.jobs.items()))),
        attempts=tuple(mix(list(fleet.attempts))),
        intents=tuple(mix(list(fleet.intents))),
        incidents=tuple(mix(list(fleet.incidents))),
        used=tuple(mix(list(fleet.used))),
        settled=tuple(mix(list(fleet.settled))),
        beliefs=replace(
            fleet.beliefs,
            nodes=dict(mix(list(fleet.beliefs.nodes.items()))),
            clusters=dict(mix(list(fleet.beliefs.clusters.items()))),
            registers=dict(mix(list(fleet.beliefs.registers.items()))),
        ),
    )


def happen(world: World, event: str, node: str) -> None:  # noqa: C901 - one case per event
    sim = world.nodes[node]
    match event:
        case "fault":
            world.fault(node)
        case "suspect":
            world.fault(node, check="net", code="", evidence="slow")
        case "power":
            world.stop_power(node)
        case "gone":
            world.stop_power(node, for_good=True)
        case "kill" | "proof":
            world.kill_agent(node, proof=event == "proof")
        case "cut" | "mend":
            sim.reachable = event == "mend"
            sim.starts_again = sim.starts_again or event == "mend"
        case "stubborn":
            sim.needs = RepairStep.REPLACE
            world.fault(node)
        case "swapped":
            sim.id, sim.serials, sim.boot = f"{sim.id}x", (f"{node}{sim.id}x",), sim.boot + 1
            sim.agents.clear()
        case "unlisted":
            sim.unlisted = True
        case "none":
            pass
        case _:
            sim.boot, sim.findings = sim.boot + 1, []
            sim.agents.clear()


def check(world: World) -> None:
    fleet, policy = world.fleet, world.policy
    assert settled(fleet, policy) == []
    one, other = reconcile(fleet, policy), reconcile(shuffled(fleet, 7), policy)
    assert one == other
    for node in fleet.nodes.values():
        assert (node.job is not None) == (node.state in SEATED)
        assert (node.step is not None) == (node.state is NodeState.REPAIRING)
        assert node.trial_since is None or node.state in {NodeState.PROBATION, *SEATED}
        assert node.trial_since is not None or node.state is not NodeState.PROBATION
    for attempt in fleet.attempts:
        if attempt.grant is not None:
            assert len(set(attempt.grant.seats)) == len(attempt.grant.seats)
            spec = fleet.jobs[attempt.job].spec
            assert spec.nodes_min <= len(attempt.grant.nodes) <= spec.nodes_max
    for decision in world.done:
        if isinstance(decision, MoveNode):
            assert decision.end in MOVES[decision.start]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.integers(1, 3),
    register=st.booleans(),
    alone=st.sampled_from(WhenAlone),
    events=st.lists(
        st.tuples(st.sampled_from(EVENTS), st.integers(0, 6), st.integers(1, 6)), max_size=8
    ),
    orders=st.lists(st.tuples(st.sampled_from(ORDERS), st.integers(0, 6)), max_size=3),
    cuts=st.lists(st.integers(0, 6), max_size=10),
    policy=st.sampled_from(POLICIES),
    can=st.sampled_from(CANS),
)
def test_whatever_happens_a_decision_is_made_once_and_lawfully(
    size: int,
    register: bool,
    alone: WhenAlone,
    events: list[tuple[str, int, int]],
    orders: list[tuple[OrderKind, int]],
    cuts: list[int],
    policy: Policy,
    can: tuple[str, ...],
) -> None:
    world = World({"a": 4, "b": 3}, policy, can=can)
    spec = JobSpec(
        nodes_min=size, nodes_max=size, register="/r" if register else None, when_alone=alone
    )
    world.submit("train", spec)
    world.submit("other", JobSpec(nodes_min=1, nodes_max=2, register="/s"), steps=25)
    world.run(12)
    names = sorted(world.nodes)
    for place, (event, node, wait) in enumerate(events):
        happen(world, event, names[node])
        if place < len(orders):
            kind, subject = orders[place]
            world.order(kind, "train" if kind is OrderKind.STOP else names[subject])
        world.tick(cut=cuts[place] if place < len(cuts) else None)
        for _ in range(wait):
            world.tick()
            check(world)
    calm_down(world)
    stopped = {"stopped", "stopping", "succeeded", "failed"}
    world.until(lambda w: w.job("train") in stopped or progresses(w), limit=90)


def calm_down(world: World) -> None:
    """Mend everything, and let every operator release what they hold."""
    for sim in world.nodes.values():
        sim.on, sim.reachable, sim.starts_again, sim.findings = True, True, True, []
        sim.unlisted = False
        sim.boot += 1
        sim.agents.clear()
    for name, node in world.fleet.nodes.items():
        if node.cordon is not None:
            world.order(OrderKind.RELEASE, name)
            world.order(OrderKind.UNCORDON, name)
    world.run(1)


def progresses(world: World) -> bool:
    before = world.steps("train")
    world.tick()
    check(world)
    return world.steps("train") > before
