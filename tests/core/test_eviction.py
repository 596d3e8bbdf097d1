"""Who is evicted, and when the breaker says no: for gangs of 1 to 8 nodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.beliefs import NodeBelief
from orchestrator.core.jobs import JobSpec
from orchestrator.core.judge import judge
from orchestrator.core.nodes import ClusterName, CohortName, NodeName
from orchestrator.core.policies import Policy
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity, Verdict
from orchestrator.runtime.lineage import Cause
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


def cohorts(world: World, **of: str) -> World:
    """Say to which cohort each node belongs, from the next listing on."""
    nodes = {
        name: replace(node, cohort=CohortName(of.get(name.replace("-", "_"), node.cohort)))
        for name, node in world.fleet.nodes.items()
    }
    world.fleet = replace(world.fleet, nodes=nodes)
    return world


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"evictions_per_hour": 1}, "1 evictions on a within the hour"),
        ({"cohort_evictions_per_hour": 1}, "1 evictions on cohort c1 of a within the hour"),
        ({"fleet_evictions_per_hour": 1}, "1 evictions on the fleet within the hour"),
        ({"quarantine_share": 0.1, "fleet_share": 0.1}, "as many nodes of a are held back"),
        ({"cohort_share": 0.1}, "as many nodes of cohort c1 of a are held back"),
    ],
)
def test_every_budget_lets_one_go_and_holds_the_second(limit: dict[str, float], words: str) -> None:
    world = gang(3, 5, replace(QUICK, **limit))  # type: ignore[arg-type]
    for name in ("a-1", "a-2"):
        world.nodes[name].starts_again = False
    world.fault("a-1").fault("a-2").run(3)
    assert [name for name in ("a-1", "a-2") if world.told(f"evicted {name}")] == ["a-1"]
    assert world.told(words)
    assert ("eviction-limit", "a") in world.pages()


def test_a_budget_of_nothing_lets_one_go() -> None:
    nothing = {"evictions_per_hour": 0, "cohort_evictions_per_hour": 0}
    shares = {"quarantine_share": 0.0, "cohort_share": 0.0, "fleet_share": 0.0}
    policy = replace(QUICK, fleet_evictions_per_hour=0, **nothing, **shares)  # type: ignore[arg-type]
    world = gang(1, 1, policy)
    world.fault("a-1").run(3)
    assert world.told("evicted a-1")


def test_another_cohort_has_a_budget_of_its_own() -> None:
    world = gang(4, 4, replace(QUICK, cohort_evictions_per_hour=1))
    cohorts(world, a_2="c2")
    world.fault("a-1").fault("a-2").fault("a-3").run(3)
    assert world.told("evicted a-1")
    assert world.told("evicted a-2")
    assert not world.told("evicted a-3")


def test_what_one_cluster_holds_back_counts_for_the_fleet() -> None:
    policy = replace(QUICK, fleet_share=0.0, quarantine_share=0.34, repair=False)
    world = World({"a": 3, "b": 6}, policy)
    world.submit("train", JobSpec(2, 2, register="/r", clusters=(ClusterName("b"),)))
    world.until(running)
    world.fault("a-1").fault("b-1").fault("b-2").run(3)
    assert world.states()["a-1"] == "quarantined"
    assert [name for name in ("b-1", "b-2") if world.told(f"evicted {name}")] == ["b-1"]
    assert world.told("as many nodes of the fleet are held back as the policy allows")


def test_nodes_that_lost_their_power_do_not_spend_the_fleet_s_share() -> None:
    policy = replace(QUICK, fleet_share=0.0)
    world = World({"a": 6, "b": 6}, policy)
    world.submit("train", JobSpec(2, 2, register="/r", clusters=(ClusterName("b"),)))
    world.until(running)
    for number in range(1, 7):
        world.stop_power(f"a-{number}", for_good=True)
    world.run(5)
    world.fault("b-1").run(3)
    assert world.told("evicted b-1")


def test_idle_nodes_that_look_bad_all_at_once_have_a_cause_in_common() -> None:
    world = World({"a": 6}).run(5)
    for name in ("a-1", "a-2", "a-3"):
        world.fault(name, check="new-check", code="")
    world.run(5)
    assert set(world.states().values()) == {"spare"}
    assert ("shared-cause", "a") in world.pages()
    world.fault("a-4")
    world.until(lambda w: w.states()["a-4"] != "spare")
    assert {world.states()[name] for name in ("a-1", "a-2", "a-3")} == {"spare"}


def test_two_idle_nodes_that_look_bad_are_held_back() -> None:
    world = World({"a": 6}, can=()).run(5)
    for name in ("a-1", "a-2"):
        world.fault(name, check="new-check", code="")
    world.run(3)
    assert {world.states()[name] for name in ("a-1", "a-2")} == {"quarantined"}


def two_channels(world: World, name: str) -> None:
    """Let a node's own checks and its peers say that its network is slow."""
    node = world.nodes[name]
    peers = finding(channel=Channel.PEERS)
    node.findings += [replace(one, observed_at=world.fleet.now) for one in (finding(), peers)]


def test_a_slow_node_stays_while_its_gang_trains_and_nobody_can_take_its_place() -> None:
    world = gang(2, spares=0)
    two_channels(world, "a-1")
    world.run(30)
    assert world.states()["a-1"] == "in-use"
    assert running(world)
    assert ("no-spare", "train") in world.pages()
    assert world.told("its gang trains on and nobody can take its place")


def test_it_leaves_as_soon_as_somebody_can() -> None:
    world = gang(2, spares=1)
    two_channels(world, "a-1")
    world.until(lambda w: set(w.members("train")) == {"a-2", "a-3"})
    assert ("no-spare", "train") not in world.pages()


@pytest.mark.parametrize(
    ("node", "cause", "ends", "evicted"),
    [
        ("a-1", Cause.RANK_EXIT, 2, True),
        ("a-1", Cause.RANK_EXIT, 1, False),  # once is chance
        ("a-2", Cause.RANK_EXIT, 2, False),  # of another one
        ("a-1", Cause.HANG, 2, False),  # says nothing of a node
    ],
)
def test_a_suspect_through_which_its_gang_fails_again_and_again_leaves(
    node: str, cause: Cause, ends: int, evicted: bool
) -> None:
    world = gang(2, spares=1)
    world.until(lambda w: w.steps("train") % 5 == 0)  # a commit has just been made
    world.nodes["a-1"].findings.append(finding(observed_at=world.fleet.now))
    for _ in range(ends):
        world.end_generation("train", cause, node=node)
        world.run(1)
    world.run(1)
    assert (world.states()["a-1"] == "quarantined") is evicted


def test_what_its_gang_says_of_a_node_alone_evicts_nobody() -> None:
    world = gang(2, spares=1)
    for _ in range(4):
        world.end_generation("train", Cause.RANK_EXIT, node="a-1")
        world.run(1)
    assert world.states()["a-1"] == "in-use"


def test_an_explicit_fault_does_not_wait_for_a_spare() -> None:
    world = gang(2, spares=0)
    world.fault("a-1")
    world.until(lambda w: w.states()["a-1"] != "in-use")
