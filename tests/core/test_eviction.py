"""Who is evicted, and when the breaker says no: for gangs of 1 to 8 nodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.beliefs import NodeBelief
from orchestrator.core.jobs import JobSpec
from orchestrator.core.judge import judge
from orchestrator.core.nodes import NodeName
from orchestrator.core.policies import Policy
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity, Verdict
from tests.core.test_stories import running, started
from tests.core.world import BEGIN, QUICK, World


def gang(size: int, spares: int, policy: Policy = QUICK) -> World:
    world = World({"a": size + spares}, policy)
    world.submit("train", JobSpec(nodes_min=size, nodes_max=size, register="/r"))
    return world.until(running)


def finding(**how: object) -> Finding:
    one = Finding("net", "nic0", Severity.CRITICAL, FaultClass.NETWORK, "slow", Channel.NODE, BEGIN)
    return replace(one, **how)  # type: ignore[arg-type]


def verdict(*findings: Finding, policy: Policy = QUICK) -> Verdict:
    return judge(NodeBelief(NodeName("a"), findings=findings, probed_at=BEGIN), policy).verdict


FINE = finding(check="disk", severity=Severity.OK)
XID = finding(check="xid", code="79", fault=FaultClass.HARDWARE)


def test_an_explicit_fault_alone_makes_a_node_unfit() -> None:
    assert verdict(FINE, XID) is Verdict.UNFIT
    assert verdict(FINE, replace(XID, severity=Severity.WARNING)) is Verdict.SUSPECT
    assert verdict(FINE, replace(XID, code="31")) is Verdict.SUSPECT


def test_a_detector_on_trial_decides_nothing() -> None:
    assert verdict(FINE, XID, policy=replace(QUICK, observe=frozenset({"xid:79"}))) is Verdict.FIT


def test_two_channels_are_needed_for_anything_else() -> None:
    other = finding(check="bus", fault=FaultClass.HARDWARE)
    assert verdict(FINE, finding(), other) is Verdict.SUSPECT
    assert verdict(FINE, finding(), replace(other, channel=Channel.PEERS)) is Verdict.UNFIT


def test_the_users_own_code_never_speaks_against_a_node() -> None:
    assert verdict(FINE, finding(fault=FaultClass.APPLICATION)) is Verdict.FIT


@pytest.mark.parametrize("others", [(), (FINE,), (FINE, XID), (FINE, finding())])
def test_a_check_that_could_not_look_never_changes_a_verdict(others: tuple[Finding, ...]) -> None:
    blind = finding(check="nvml", severity=Severity.UNKNOWN)
    assert verdict(*others, blind) is verdict(*others)
    assert judge(NodeBelief(NodeName("a")), QUICK).words == "verdict unknown"


@pytest.mark.parametrize("size", range(1, 9))
def test_one_node_of_a_gang_of_any_size_may_be_evicted(size: int) -> None:
    world = gang(size, 2)
    world.fault("a-1")
    world.until(lambda w: "a-1" not in w.members("train") and running(w))
    assert world.attempt("train").number == 1
    assert len(world.members("train")) == size


@pytest.mark.parametrize("size", range(1, 9))
def test_the_breaker_keeps_a_share_of_the_cluster_and_pages(size: int) -> None:
    world = gang(size, 1)
    for number in range(1, size + 2):
        world.nodes[f"a-{number}"].starts_again = False
        world.fault(f"a-{number}")
    world.run(3)
    kept_back = sum(state in ("quarantined", "repairing") for state in world.states().values())
    assert kept_back == max(1, int(0.34 * (size + 1)))
    left = {name for name, state in world.states().items() if state in ("in-use", "standby")}
    assert (("eviction-limit", "a") in world.pages()) == bool(left)


def test_so_many_evictions_an_hour_and_then_no_more_until_it_is_over() -> None:
    world = gang(2, 6, replace(QUICK, evictions_per_hour=1))
    world.fault("a-1")
    world.until(lambda w: w.states()["a-1"] == "spare")
    world.fault("a-2")
    world.run(3)
    assert ("eviction-limit", "a") in world.pages()
    assert world.told("1 evictions on a within the hour")
    world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(hours=1))
    world.until(lambda w: "a-2" not in w.members("train"))


def test_many_suspects_at_once_have_a_cause_in_common() -> None:
    world = gang(4, 1)
    for number in range(1, 5):
        world.fault(f"a-{number}", check="net", code="", fault=FaultClass.NETWORK)
        world.fault(f"a-{number}", check="bus", code="", channel=Channel.PEERS)
    world.run(5)
    assert ("shared-cause", "train") in world.pages()
    assert not world.told("evicted a-")


def test_one_unfit_by_two_channels_is_evicted() -> None:
    world = gang(2, 1)
    world.fault("a-2", check="net", code="", fault=FaultClass.NETWORK)
    world.run(3)
    assert not world.told("evicted a-")
    world.fault("a-2", check="bus", code="", channel=Channel.PEERS)
    world.until(lambda w: w.members("train") == ("a-1", "a-3"))


def test_a_broken_standby_leaves_without_touching_the_gang() -> None:
    world = started({"a": 3})
    world.fault("a-3")
    world.until(lambda w: w.told("evicted a-3"))
    assert world.told("the gang goes on without it")
    before = world.gangs["train", 1].number
    world.run(10)
    assert world.gangs["train", 1].number == before


def test_with_nobody_to_take_its_place_a_broken_node_is_stopped_all_the_same() -> None:
    world = started({"a": 2})
    world.fault("a-1")
    world.until(lambda w: w.told("stopped train, attempt 1, on a-1"))
    assert ("no-spare", "train") in world.pages()
    before = world.steps("train")
    world.until(lambda w: w.steps("train") > before + 2, limit=40)
