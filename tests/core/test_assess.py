"""Beliefs do not depend on how the facts were delivered."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.assess import assess
from orchestrator.core.beliefs import Beliefs
from orchestrator.core.nodes import ClusterName, JobName, Machine, MachineId, NodeName
from orchestrator.core.observations import (
    Accused,
    AgentGone,
    AgentSeen,
    AgentSilent,
    InventorySeen,
    MachineSeen,
    NodeReached,
    NodeUnreached,
    Observation,
    Ordered,
    OrderKind,
    Power,
    Probed,
    ProviderFailed,
    RegisterSeen,
    RegisterSilent,
)
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.runtime.lineage import Commit, Fence
from orchestrator.runtime.reports import PROTOCOL, AgentReport, Note, Stage
from tests.core.world import BEGIN

N1, A, JOB = NodeName("a-1"), ClusterName("a"), JobName("train")


def at(second: float) -> timedelta:
    return timedelta(seconds=second)


def report(
    second: int, agent: str = "p1", boot: str = "b1", notes: tuple[Note, ...] = ()
) -> AgentReport:
    return AgentReport(
        protocol=PROTOCOL,
        node=N1,
        job=JOB,
        attempt=1,
        agent=agent,
        boot_id=boot,
        pid=1,
        host="h",
        port=1,
        at=float(second),
        started_at=0.0,
        stage=Stage.RUNNING,
        grant=1,
        token=1,
        generation=1,
        generation_seq=2,
        members=(N1,),
        peers_lost=(),
        ranks=(),
        notes=notes,
    )


def finding(severity: Severity, second: int, boot: str) -> Finding:
    moment = BEGIN + at(second)
    return Finding(
        "xid", "gpu0", severity, FaultClass.HARDWARE, str(severity), Channel.NODE, moment, boot
    )


def boot_of(second: int) -> str:
    return "b1" if second < 8 else "b2"


@st.composite
def facts(draw: st.DrawFn) -> Observation:  # noqa: C901 - one case per kind of fact
    second = draw(st.integers(0, 14))
    now, boot = BEGIN + at(second), boot_of(second)
    kind = draw(st.integers(0, 12))
    if kind == 12:
        posterior = draw(st.sampled_from([0.4, 0.9, 0.99]))
        nodes = (N1,) if posterior > 0.5 else (N1, NodeName("a-2"))
        return Accused(JOB, 1, nodes, posterior, Channel.GANG, "slow", now)
    if kind == 0:
        notes = (Note(second + 1, 0.0, draw(st.sampled_from(["commit", "hang"])), "n"),)
        return AgentSeen(N1, now, report(second, "p1" if second < 5 else "p2", boot, notes))
    if kind == 1:
        return AgentSilent(N1, JOB, 1, now, draw(st.sampled_from(["x", "y"])))
    if kind == 2:
        return AgentGone(N1, JOB, 1, now, draw(st.sampled_from(["guard", "sweep"])))
    if kind == 3:
        return NodeReached(N1, now, boot)
    if kind == 4:
        return NodeUnreached(N1, now, draw(st.sampled_from(["x", "y"])))
    if kind == 5:
        one = finding(draw(st.sampled_from(Severity)), second, boot)
        return Probed(N1, now, boot, (one,), complete=draw(st.booleans()))
    if kind in (6, 7):
        power = Power.STOPPED if 6 <= second < 8 else Power.RUNNING
        machine = MachineSeen(N1, "c", Machine(MachineId("i")), power, boot)
        return InventorySeen(A, "sim", now, (machine,) if kind == 6 else ())
    if kind == 8:
        return ProviderFailed(A, now, draw(st.sampled_from(["x", "y"])))
    if kind == 9:
        return RegisterSilent(JOB, now, "x")
    if kind == 10:
        fence = Fence(1, "n", 1, 1, 0.0)
        commit = Commit(second + 2, "n", 1, second, None, "m", "d", 0.0, "")
        return RegisterSeen(JOB, now, fence, (), commit, second, 0)
    return Ordered(second, now, "ann", OrderKind.STOP, JOB, "")


@settings(max_examples=300, deadline=None)
@given(st.lists(facts(), max_size=25), st.randoms(use_true_random=False), st.integers(1, 5))
def test_batches_of_any_size_and_order_give_equal_beliefs(
    seen: list[Observation], dice: random.Random, size: int
) -> None:
    now = BEGIN + at(20)
    whole = assess(Beliefs(), seen, now)
    mixed = list(seen)
    dice.shuffle(mixed)
    parts = Beliefs()
    for begin in range(0, len(mixed), size):
        parts = assess(parts, mixed[begin : begin + size], now)
    assert parts == whole
    assert assess(whole, seen, now) == whole


def belief(*seen: Observation, after: float = 20) -> Beliefs:
    return assess(Beliefs(), seen, BEGIN + at(after))


def test_silence_is_counted_from_the_first_one_after_the_last_answer() -> None:
    silent = [AgentSilent(N1, JOB, 1, BEGIN + at(s), "refused") for s in (1, 5, 7)]
    held = belief(silent[0], AgentSeen(N1, BEGIN + at(3), report(3)), *silent[1:])
    agent = held.nodes[N1].agents[0]
    assert agent.silent_since == BEGIN + at(5)
    late = assess(held, [AgentSeen(N1, BEGIN + at(6), report(6))], BEGIN + at(20))
    assert late.nodes[N1].agents[0].silent_since == BEGIN + at(7)


def test_a_machine_that_is_off_runs_no_agent() -> None:
    off = MachineSeen(N1, "c", Machine(MachineId("i")), Power.STOPPED)
    held = belief(
        AgentSeen(N1, BEGIN, report(0)),
        InventorySeen(A, "sim", BEGIN + at(1), (off,)),
        NodeUnreached(N1, BEGIN + at(1), "no route"),
    )
    assert held.nodes[N1].power_off
    assert held.nodes[N1].agents[0].gone_at == BEGIN + at(1)
    again = assess(held, [NodeReached(N1, BEGIN + at(2), "b2")], BEGIN + at(3))
    assert not again.nodes[N1].power_off


def test_a_provider_alone_ends_nothing_that_still_answers() -> None:
    """Its listing may be stale: the node's own silence must agree, its own words contradict."""
    stale = [MachineSeen(N1, "c", Machine(MachineId("i")), p, "b0") for p in Power]
    heard = AgentSeen(N1, BEGIN, report(0))
    for listed in stale[:2]:
        held = belief(heard, *(InventorySeen(A, "sim", BEGIN + at(s), (listed,)) for s in (1, 4)))
        node = held.nodes[N1]
        assert not node.power_off
        assert node.agents[0].gone_at is None
        again = AgentSeen(N1, BEGIN + at(3), report(3))
        later = assess(held, [again], BEGIN + at(20)).nodes[N1]
        assert (later.boot_id, later.agents[0].gone_at) == ("b1", None)


def test_a_new_boot_ended_every_older_agent_and_its_findings() -> None:
    bad = Probed(N1, BEGIN, "b1", (finding(Severity.CRITICAL, 0, "b1"),), complete=True)
    held = belief(
        bad, AgentSeen(N1, BEGIN + at(1), report(1)), NodeReached(N1, BEGIN + at(2), "b2")
    )
    node = held.nodes[N1]
    assert node.findings == ()
    assert node.probed_at is None
    assert node.agents[0].gone_at == BEGIN + at(2)
    assert "booted again" in node.agents[0].proof


def test_an_answer_clears_the_proof_that_an_agent_was_gone() -> None:
    gone = AgentGone(N1, JOB, 1, BEGIN + at(1), "guard")
    held = belief(gone, AgentSeen(N1, BEGIN + at(2), report(2, "p2")))
    assert held.nodes[N1].agents[0].gone_at is None
    assert assess(held, [gone], BEGIN + at(9)) == held


def test_a_check_that_could_not_look_takes_nothing_back() -> None:
    bad = Probed(N1, BEGIN, "b1", (finding(Severity.CRITICAL, 0, "b1"),), complete=True)
    blind = Probed(N1, BEGIN + at(2), "b1", (finding(Severity.UNKNOWN, 2, "b1"),), complete=True)
    (kept,) = belief(bad, blind).nodes[N1].findings
    assert (kept.severity, kept.told_at) == (Severity.CRITICAL, BEGIN)


def test_a_settled_order_never_comes_back() -> None:
    order = Ordered(1, BEGIN, "ann", OrderKind.STOP, JOB, "")
    held = replace(belief(), answered=(1,))
    assert assess(held, [order], BEGIN).orders == ()


def test_an_agent_long_gone_is_forgotten() -> None:
    gone = AgentGone(N1, JOB, 1, BEGIN, "guard")
    assert belief(gone, after=90_000).nodes[N1].agents == ()


@pytest.mark.parametrize(
    ("skew", "found"),
    [
        (0, 100),
        (3, 100),  # less than a step: a clock that is right enough
        (-3_600, 100),  # an hour behind
        (3_600, 100),  # ahead
        (-40 * 86_400, -40 * 86_400 + 100),  # another clock altogether: left as it is
    ],
)
def test_a_finding_is_dated_on_our_clock(skew: int, found: int) -> None:
    """A node whose clock is behind must not date its findings before a pardon."""
    looked = replace(finding(Severity.CRITICAL, 100, "b1"), observed_at=BEGIN + at(100 + skew))
    for late in (120, 180):  # told again and again: the same moment
        clock = BEGIN + at(late + skew) if abs(skew) < 86_400 else BEGIN + at(late)
        probe = Probed(N1, BEGIN + at(late), "b1", (looked,), complete=True, clock_at=clock)
        (one,) = belief(probe, after=late + 20).nodes[N1].findings
        assert abs(one.observed_at - (BEGIN + at(found))) <= timedelta(seconds=15)
        assert one.told_at == BEGIN + at(late)


def test_a_node_that_does_not_tell_its_clock_found_nothing_in_the_future() -> None:
    looked = replace(finding(Severity.CRITICAL, 100, "b1"), observed_at=BEGIN + at(7_200))
    (one,) = belief(probed(120, looked), after=140).nodes[N1].findings
    assert one.observed_at == BEGIN + at(120)


def probed(second: int, *findings: Finding) -> Probed:
    return Probed(N1, BEGIN + at(second), "b1", findings, complete=True)
