"""Firings, what came of them, and what their detectors may do."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.assess import assess
from orchestrator.core.beliefs import Beliefs, NodeBelief, RegisterBelief
from orchestrator.core.decisions import LabelFiring, SetAuthority
from orchestrator.core.detectors import Authority, Detector, Label
from orchestrator.core.enact import enact
from orchestrator.core.explain import explain
from orchestrator.core.firings import GAP, Firing, FiringLabel, heard
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.history import History, RepairStep, Step
from orchestrator.core.jobs import Job, JobSpec, JobState, UnlawfulStepError
from orchestrator.core.judge import judge
from orchestrator.core.labels import GIVE_UP
from orchestrator.core.nodes import (
    ClusterName,
    CohortName,
    Cordon,
    Former,
    JobName,
    Machine,
    MachineId,
    Node,
    NodeName,
    NodeState,
    ProviderName,
)
from orchestrator.core.observations import Probed, RegisterSeen
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import new_recall, reconcile
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity, Verdict
from orchestrator.runtime.lineage import Because, Cause, Generation
from orchestrator.runtime.reports import Stage
from tests.core.test_stories import started
from tests.core.world import BEGIN, World

A = NodeName("a-1")
S, DAY, HOUR = NodeState, timedelta(days=1), timedelta(hours=1)
POLICY = Policy()


def finding(at: datetime = BEGIN, **how: object) -> Finding:
    one = Finding(
        "net", "nic0", Severity.CRITICAL, FaultClass.HARDWARE, "drops", Channel.NODE, at, "b1"
    )
    return replace(one, **how)  # type: ignore[arg-type]


def probed(at: datetime, *findings: Finding) -> Probed:
    return Probed(A, at, "b1", findings, complete=True)


def firing(at: datetime = BEGIN, **how: object) -> Firing:
    one = Firing("net", Channel.NODE, at, at, critical=True)
    return replace(one, **how)  # type: ignore[arg-type]


def fleet(*firings: Firing, now: datetime, state: NodeState = S.IN_USE, **how: object) -> Fleet:
    """One node that fired, and nothing else that calls for a decision."""
    node = Node(
        A,
        ClusterName("a"),
        ProviderName("sim"),
        CohortName("first"),
        Machine(MachineId("m1")),
        state,
        BEGIN - DAY,
        "",
        accepted_at=BEGIN - DAY,
    )
    node = replace(node, **how)  # type: ignore[arg-type]
    belief = NodeBelief(A, firings=firings)
    clusters = (Cluster(ClusterName("a"), ProviderName("sim")),)
    return Fleet(now, clusters, {A: node}, beliefs=Beliefs({A: belief}))


def labels(fleet: Fleet) -> list[tuple[str, str, str]]:
    plan = reconcile(fleet, POLICY)
    recalled = reconcile(fleet, POLICY, new_recall())
    assert plan == recalled
    return [
        (one.detector, one.label.value, one.reason)
        for one in plan.decisions
        if isinstance(one, LabelFiring)
    ]


# --- firings ------------------------------------------------------------------------------------


def test_findings_close_together_are_one_firing() -> None:
    seen = [probed(BEGIN + n * HOUR, finding(BEGIN + n * HOUR)) for n in range(50)]
    later = BEGIN + 50 * HOUR + GAP
    beliefs = assess(Beliefs(), [*seen, probed(later, finding(later))], later)
    spans = [(one.first_at, one.last_at) for one in beliefs.nodes[A].firings]
    assert spans == [(BEGIN, BEGIN + 49 * HOUR), (later, later)]


def test_a_finding_that_is_told_again_and_again_fires_once() -> None:
    seen = [probed(BEGIN + n * DAY, finding(BEGIN)) for n in range(20)]
    beliefs = assess(Beliefs(), seen, BEGIN + 20 * DAY)
    assert [one.last_at for one in beliefs.nodes[A].firings] == [BEGIN]


@pytest.mark.parametrize("seed", range(20))
def test_firings_do_not_depend_on_the_order_of_findings(seed: int) -> None:
    dice = random.Random(seed)
    found = [
        finding(
            BEGIN + timedelta(hours=dice.uniform(0, 240)),
            check=dice.choice(["net", "xid"]),
            severity=dice.choice([Severity.WARNING, Severity.CRITICAL]),
        )
        for _ in range(12)
    ]
    late = BEGIN + 30 * DAY
    once = heard((), found, late)
    dice.shuffle(found)
    assert heard(heard((), found, late), found, late) == once, f"seed {seed}"
    assert heard(once, found, late) is once


def test_what_accuses_nobody_is_no_firing() -> None:
    kinds = [
        finding(severity=Severity.OK),
        finding(severity=Severity.UNKNOWN),
        finding(fault=FaultClass.APPLICATION),
        finding(severity=Severity.WARNING, fault=FaultClass.CONFIG),
    ]
    assert heard((), kinds, BEGIN) == ()
    assert heard((), [finding(BEGIN + DAY)], BEGIN)[0].first_at == BEGIN, "no clock of a node rules"


# --- labels -------------------------------------------------------------------------------------


def test_seven_days_of_service_refute_a_firing() -> None:
    week = BEGIN + 7 * DAY
    assert labels(fleet(firing(), now=week - HOUR)) == []
    assert reconcile(fleet(firing(), now=week - HOUR), POLICY).look_again_at is not None
    says = "it served 7 days without a confirmation"
    assert labels(fleet(firing(), now=week)) == [("net", "wrong", says)]


def test_after_a_repair_the_week_begins_with_the_passed_burn_in() -> None:
    passed = BEGIN + 2 * DAY
    known: dict[str, Any] = {"accepted_at": passed, "since": passed + DAY}
    assert labels(fleet(firing(), now=passed + 7 * DAY, **known)) == []
    says = "it passed burn-in and served 7 days without a confirmation"
    assert labels(fleet(firing(), now=passed + 8 * DAY, **known)) == [("net", "wrong", says)]
    idle = fleet(firing(), now=passed + 9 * DAY, state=S.SPARE, served=6 * DAY, **known)
    assert labels(idle) == [], "an idle node serves nobody"
    held = fleet(firing(), now=passed + 9 * DAY, state=S.QUARANTINED, **known)
    assert labels(held) == []


def test_what_may_have_been_mended_or_is_elsewhere_is_not_refuted_by_good_service() -> None:
    passed = BEGIN + 2 * DAY
    known: dict[str, Any] = {"accepted_at": passed, "since": passed}
    later = passed + 7 * DAY
    mended = History(steps=(Step(BEGIN + DAY, RepairStep.RESET, "net"),))
    assert labels(fleet(firing(), now=later, history=mended, **known)) == []
    for other in (
        Step(BEGIN - DAY, RepairStep.RESET, "net"),  # before it fired
        Step(BEGIN + DAY, RepairStep.RESET, "xid:79"),  # for something else
    ):
        history = History(steps=(other,))
        assert len(labels(fleet(firing(), now=later, history=history, **known))) == 1
    before = Former(Machine(MachineId("m0")), History(), BEGIN + DAY)
    assert labels(fleet(firing(), now=later, former=(before,), **known)) == []
    long_ago = replace(before, until=BEGIN - DAY)
    assert len(labels(fleet(firing(), now=later, former=(long_ago,), **known))) == 1


def test_a_gang_that_trained_on_it_until_it_was_taken_out_speaks_against_the_firing() -> None:
    passed = BEGIN + 2 * DAY
    step = Step(BEGIN + DAY, RepairStep.RESET, "net")
    for trained, said in ((True, ["wrong"]), (False, [])):
        history = History().troubled(BEGIN, "net", trained=trained)
        history = replace(history, steps=(step,))
        one = fleet(
            firing(), now=passed + 7 * DAY, history=history, accepted_at=passed, since=passed
        )
        assert [label for _, label, _ in labels(one)] == said


@pytest.mark.parametrize(
    ("stage", "cause", "node", "after", "right"),
    [
        (Stage.WAITING, "rank-exit", A, 60, True),
        (Stage.FORMING, "node-lost", A, -60, True),
        (Stage.RUNNING, "rank-exit", A, 60, False),  # the next generation runs: the register tells
        (Stage.WAITING, "grant", A, 60, False),
        (Stage.WAITING, "rank-exit", "a-2", 60, False),
        (Stage.WAITING, "rank-exit", A, 3_600, False),
    ],
)
def test_a_gang_that_stands_since_it_failed_there_confirms(
    stage: Stage, cause: str, node: str, after: float, right: bool
) -> None:
    world = started({"a": 2})
    now = world.fleet.now
    told = now + timedelta(seconds=after)
    belief = world.fleet.beliefs.nodes[NodeName("a-2")]
    (heard_of,) = belief.agents
    assert heard_of.report is not None
    report = replace(heard_of.report, stage=stage, failure={"cause": cause, "node": node})
    agent_belief = replace(heard_of, report=report, answered_at=told)
    nodes = {
        **world.fleet.beliefs.nodes,
        A: replace(world.fleet.beliefs.nodes[A], firings=(firing(now, first_at=now),)),
        NodeName("a-2"): replace(belief, agents=(agent_belief,)),
    }
    beliefs = replace(world.fleet.beliefs, nodes=nodes)
    one = replace(world.fleet, beliefs=beliefs, now=max(now, told))
    found = [
        decision.label.value
        for decision in reconcile(one, POLICY).decisions
        if isinstance(decision, LabelFiring)
    ]
    assert (found == ["right"]) is right


def test_another_channel_confirms_and_another_check_of_the_same_does_not() -> None:
    peers = firing(BEGIN + DAY, detector="pair", channel=Channel.PEERS)
    found = labels(fleet(firing(), peers, now=BEGIN + 2 * DAY))
    says = "pair says so too, through another channel (peers)"
    assert ("net", "right", says) in found
    assert [one for one in found if one[0] == "pair"] == [], "what came before confirms nothing"
    same = firing(BEGIN + DAY, detector="pair")
    late = firing(BEGIN + 8 * DAY, detector="pair", channel=Channel.PEERS)
    weak = replace(peers, critical=False)
    for other in (same, late, weak):
        assert labels(fleet(firing(), other, now=BEGIN + 2 * DAY)) == []


def test_a_check_that_fails_in_burn_in_confirms_unless_it_is_the_same() -> None:
    tested, now = BEGIN + HOUR, BEGIN + 2 * HOUR
    burning: dict[str, Any] = {"state": S.BURN_IN, "since": tested, "now": now}
    found = labels(fleet(firing(), firing(now, detector="xid:79"), **burning))
    assert found == [("net", "right", "it did not pass burn-in either: xid:79")]
    assert labels(fleet(firing(last_at=now), **burning)) == []
    before = firing(BEGIN + HOUR / 2, detector="xid:79")
    assert labels(fleet(firing(), before, **burning)) == []


def test_a_person_and_a_changed_part_confirm() -> None:
    cordon = Cordon("operator:ann", "burnt smell", BEGIN + DAY)
    held = fleet(firing(), now=BEGIN + 2 * DAY, state=S.QUARANTINED, cordon=cordon)
    assert labels(held) == [("net", "right", "operator:ann put it in quarantine: burnt smell")]
    drained = fleet(firing(), now=BEGIN + 2 * DAY, state=S.DRAINING, cordon=cordon)
    assert labels(drained) == [], "a drain accuses nobody"
    swapped = fleet(firing(), now=BEGIN + 2 * DAY, swapped_at=BEGIN + DAY)
    assert labels(swapped) == [("net", "right", "its provider changed a part of it")]


@pytest.mark.parametrize(
    ("cause", "node", "after", "right"),
    [
        (Cause.RANK_EXIT, A, 60, True),
        (Cause.NODE_LOST, A, -60, True),
        (Cause.GRANT, A, 60, False),
        (Cause.RANK_EXIT, "a-2", 60, False),
        (Cause.RANK_EXIT, A, 3_600, False),
    ],
)
def test_the_gang_confirms_if_it_failed_there_just_then(
    cause: Cause, node: str, after: float, right: bool
) -> None:
    at = BEGIN.timestamp() + after
    because = Because(cause, 1, "", node)
    formed = Generation(2, "n", 1, None, 1, 1, (), "h:1", None, "", because, at, "a-2")
    job = Job(JobName("t"), JobSpec(1, 1), JobState.FAILED, BEGIN, BEGIN)
    seen = RegisterSeen(job.name, BEGIN, None, (formed,), None, 0, 0)
    one = fleet(firing(), now=BEGIN + 2 * HOUR)
    beliefs = replace(one.beliefs, registers={job.name: RegisterBelief(job.name, seen)})
    one = replace(one, jobs={job.name: job}, beliefs=beliefs)
    assert bool(labels(one)) is right


def test_what_neither_comes_to_pass_is_given_up() -> None:
    one = fleet(firing(), now=BEGIN + GIVE_UP, state=S.RETIRED)
    assert labels(one) == [("net", "unknown", "neither confirmed nor refuted within 28 days")]


def test_a_firing_is_labelled_once() -> None:
    one = fleet(firing(), now=BEGIN + 7 * DAY)
    (decision,) = [d for d in reconcile(one, POLICY).decisions if isinstance(d, LabelFiring)]
    after = enact(one, decision, one.now)
    record = after.beliefs.detectors["net"]
    assert (record.right, record.wrong, record.lately[0].node) == (0, 1, A)
    assert labels(after) == []
    with pytest.raises(UnlawfulStepError, match="net on a-1"):
        enact(after, decision, one.now)
    again = assess(after.beliefs, [probed(BEGIN + HOUR, finding(BEGIN + HOUR))], one.now)
    assert [one.label for one in again.nodes[A].firings] == [FiringLabel.WRONG]


# --- authority ----------------------------------------------------------------------------------


def taught(name: str, *, right: int = 0, wrong: int = 0) -> Detector:
    detector = Detector(name)
    for number in range(right + wrong):
        detector = detector.told(Label(f"n{number}", BEGIN, BEGIN, number < right, "told"))
    return detector


def decided(*detectors: Detector, policy: Policy = POLICY) -> tuple[list[SetAuthority], Fleet]:
    one = fleet(now=BEGIN)
    known = {detector.name: detector for detector in detectors}
    one = replace(one, beliefs=replace(one.beliefs, detectors=known))
    found = [d for d in reconcile(one, policy).decisions if isinstance(d, SetAuthority)]
    for decision in found:
        one = enact(one, decision, BEGIN)
    return found, one


def test_labels_promote_and_demote_with_a_reason_that_is_told() -> None:
    found, after = decided(taught("net", right=97), taught("xid:79", right=20, wrong=3))
    assert [(one.detector, one.authority.value) for one in found] == [
        ("net", "act"),
        ("xid:79", "observe"),
    ]
    told = [explain(one) for one in found]
    assert told[0].startswith("net may evict on its own word from now on: 97 of 97 labels right")
    assert told[1].startswith("xid:79 is only a suspicion from now on: 20 of 23 labels right")
    assert after.beliefs.detectors["xid:79"].since == BEGIN
    assert decided(*after.beliefs.detectors.values())[0] == []


def test_a_demoted_explicit_fault_no_longer_evicts_alone() -> None:
    world = World({"a": 4})
    world.submit("train", JobSpec(2, 2, register="file:///r"))
    world.until(lambda w: "train" in w.fleet.jobs and w.steps("train") > 2)
    victim = world.members("train")[0]
    demoted = taught("xid:79", wrong=3).given(Authority.OBSERVE, BEGIN, "")
    beliefs = replace(world.fleet.beliefs, detectors={"xid:79": demoted})
    world.fleet = replace(world.fleet, beliefs=beliefs)
    world.fault(victim).run(15)
    assert world.state(victim) is S.IN_USE
    promoted = demoted.given(Authority.ACT, BEGIN, "")
    beliefs = replace(world.fleet.beliefs, detectors={"xid:79": promoted})
    world.fleet = replace(world.fleet, beliefs=beliefs)
    world.until(lambda w: w.told(f"evicted {victim}"))


def test_an_earned_authority_evicts_and_the_operator_has_the_last_word() -> None:
    fault = finding(check="slow", code="7")
    belief = NodeBelief(A, findings=(fault,), probed_at=BEGIN)
    assert judge(belief, POLICY).verdict is Verdict.SUSPECT
    assert judge(belief, POLICY, None, frozenset({"slow:7"})).verdict is Verdict.UNFIT
    silenced = replace(POLICY, observe=frozenset({"slow:7"}))
    _, after = decided(taught("slow:7", right=97), policy=silenced)
    assert after.beliefs.detectors["slow:7"].authority is Authority.ACT
    assert judge(belief, silenced, None, frozenset()).verdict is not Verdict.SUSPECT
