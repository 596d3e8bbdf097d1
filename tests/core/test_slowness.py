"""Stragglers as the controller knows them: told from steps, a suspicion, never an eviction."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

from orchestrator.core.assess import assess
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import JobSpec
from orchestrator.core.judge import judge
from orchestrator.core.nodes import JobName, NodeName, NodeState
from orchestrator.core.observations import Probed
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import reconcile
from orchestrator.core.slowness import CHECK, slowness
from orchestrator.core.verdicts import Channel, Finding, Severity, Verdict
from orchestrator.runtime.reports import RankReport, RankState
from tests.core.world import World

FOUR = JobSpec(nodes_min=4, nodes_max=4, register="/r")
STEP = 120


def gang() -> World:
    world = World({"ash": 5})
    world.submit("train", FOUR)
    world.until(lambda world: bool(world.fleet.attempts))
    return world.until(lambda world: len(world.members("train")) == 4).run(5)


def telling(
    fleet: Fleet, factors: dict[int, float], *, steps: int = 50, skew: int = 0, roles: str = ""
) -> Fleet:
    """Let one rank of each node tell its own times: rank r is `factors[r]` as slow as usual."""
    dice = random.Random(3)
    job = fleet.attempts[0].job
    nodes = dict(fleet.beliefs.nodes)
    running = [n for n, b in sorted(nodes.items()) if b.agents and b.agents[0].report]
    members = nodes[running[0]].agents[0].report.members  # type: ignore[union-attr]
    for number, name in enumerate(map(NodeName, members)):
        belief = nodes[name]
        agent = belief.agent(job, 1)
        assert agent is not None
        assert agent.report is not None
        own = tuple(dice.gauss(1.0, 0.02) * factors.get(number, 1.0) for _ in range(steps))
        last = STEP + (skew if number == 0 else 0)
        role = roles[number] if roles else ""
        rank = RankReport(
            number, 0, 1, RankState.RUNNING, "step", last, own=own, own_step=last, role=role
        )
        agent = replace(agent, report=replace(agent.report, ranks=(rank,)), answered_at=fleet.now)
        nodes[name] = replace(belief, agents=(agent,))
    return replace(fleet, beliefs=replace(fleet.beliefs, nodes=nodes))


def told(fleet: Fleet) -> Fleet:
    """Fold what is new about the ranks."""
    return replace(fleet, beliefs=assess(fleet.beliefs, slowness(fleet), fleet.now))


def findings(fleet: Fleet) -> list[tuple[str, Finding]]:
    return [(p.node, f) for p in slowness(fleet) for f in p.findings]


def later(fleet: Fleet, seconds: float) -> Fleet:
    return replace(fleet, now=fleet.now + timedelta(seconds=seconds))


def test_a_persistently_slow_rank_is_a_suspicion_of_its_node_and_evicts_nobody() -> None:
    fleet = telling(gang().fleet, {2: 1.5})
    ((name, finding),) = findings(fleet)
    member = fleet.beliefs.nodes[NodeName(name)].agents[0].report
    assert member is not None
    assert member.ranks[0].rank == 2
    assert (finding.detector, finding.channel) == (f"{CHECK}:suspected", Channel.GANG)
    assert finding.severity is Severity.WARNING
    assert "rank 2 works 1.4" in finding.evidence
    fleet = told(fleet)
    judged = judge(fleet.beliefs.nodes[NodeName(name)], Policy())
    assert (judged.verdict, judged.explicit) == (Verdict.SUSPECT, False)
    before = gang().fleet
    after = reconcile(fleet, Policy()).decisions
    assert {type(one) for one in after} <= {
        type(one) for one in reconcile(before, Policy()).decisions
    }
    assert fleet.nodes[NodeName(name)].state is NodeState.IN_USE


def test_slower_by_a_tenth_is_told_and_held_against_nobody() -> None:
    fleet = told(telling(gang().fleet, {1: 1.2}))
    nodes = [b for b in fleet.beliefs.nodes.values() if any(f.check == CHECK for f in b.findings)]
    assert [f.code for b in nodes for f in b.findings if f.check == CHECK] == ["slow"]
    assert judge(nodes[0], Policy()).verdict is Verdict.FIT


def test_it_is_told_once_again_after_a_minute_and_taken_back_when_it_is_over() -> None:
    fleet = told(telling(gang().fleet, {2: 1.5}))
    assert findings(telling(later(fleet, 10), {2: 1.5})) == []
    assert len(findings(telling(later(fleet, 61), {2: 1.5}))) == 1
    ((name, finding),) = findings(telling(later(fleet, 10), {}))
    assert finding.severity is Severity.OK
    fleet = told(telling(later(fleet, 10), {}))
    assert judge(fleet.beliefs.nodes[NodeName(name)], Policy()).verdict is Verdict.FIT
    assert findings(fleet) == []


def test_too_few_steps_say_nothing_and_take_nothing_back() -> None:
    fleet = told(telling(gang().fleet, {2: 1.5}))
    assert findings(telling(later(fleet, 61), {2: 1.5}, steps=19)) == []
    assert findings(telling(later(fleet, 61), {}, steps=19)) == []


def test_reports_of_different_moments_are_compared_over_the_steps_they_share() -> None:
    fleet = gang().fleet
    assert len(findings(telling(fleet, {2: 1.5}, skew=25))) == 1
    assert findings(telling(fleet, {2: 1.5}, skew=40)) == [], "they share ten steps"
    assert findings(telling(fleet, {2: 1.5}, skew=4000)) == []


def test_roles_are_not_compared_and_three_are_needed() -> None:
    assert findings(telling(gang().fleet, {2: 1.5}, roles="aaba")) == []
    assert len(findings(telling(gang().fleet, {2: 1.5}, roles="baaa"))) == 1


def test_an_agent_that_is_silent_says_nothing_of_now() -> None:
    fleet = telling(gang().fleet, {2: 1.5})
    nodes = {
        name: replace(b, agents=tuple(replace(a, silent_since=fleet.now) for a in b.agents))
        for name, b in fleet.beliefs.nodes.items()
    }
    assert findings(replace(fleet, beliefs=replace(fleet.beliefs, nodes=nodes))) == []


def test_a_second_channel_that_calls_it_critical_makes_it_unfit() -> None:
    fleet = told(telling(gang().fleet, {2: 1.5}))
    (name,) = [
        n for n, b in fleet.beliefs.nodes.items() if any(f.check == CHECK for f in b.findings)
    ]
    mine = fleet.beliefs.nodes[name]
    straggler = next(f for f in mine.findings if f.check == CHECK)
    heat = replace(
        straggler,
        check="clocks",
        component="gpu0",
        code="hw-thermal",
        channel=Channel.NODE,
        severity=Severity.CRITICAL,
    )
    seen = Probed(name, fleet.now, mine.boot_id, (heat,), complete=True)
    beliefs = assess(fleet.beliefs, [seen], fleet.now)
    assert judge(beliefs.nodes[name], Policy()).verdict is Verdict.UNFIT
    assert judge(fleet.beliefs.nodes[name], Policy()).verdict is Verdict.SUSPECT


def test_a_job_that_is_not_there_any_more_is_not_judged() -> None:
    fleet = telling(gang().fleet, {2: 1.5})
    assert fleet.attempts[0].job == JobName("train")
    assert list(slowness(replace(fleet, attempts=()))) == []
