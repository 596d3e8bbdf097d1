"""What counts as a failure of a cohort, when; and that the order of the facts does not matter."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.assess import assess
from orchestrator.core.beliefs import Beliefs
from orchestrator.core.cohorts import Failure
from orchestrator.core.decisions import SettleOrder
from orchestrator.core.fleet import Fleet
from orchestrator.core.nodes import ClusterName, Machine, MachineId, NodeName
from orchestrator.core.observations import (
    InventorySeen,
    MachineSeen,
    NodeReached,
    Observation,
    Ordered,
    OrderKind,
    Power,
    Probed,
)
from orchestrator.core.phases import Phases
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import reconcile
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.ledger import codec
from tests.core.world import BEGIN

A = ClusterName("a")
NAMES = ("n1", "n2", "n3")
LATENESS = 15


def after(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def machine(name: str, power: Power = Power.RUNNING, boot: str = "") -> MachineSeen:
    return MachineSeen(NodeName(name), "first", Machine(MachineId(name)), power, boot)


def listing(second: float, off: Iterable[str] = (), names: Iterable[str] = NAMES) -> InventorySeen:
    seen = (machine(n, Power.STOPPED if n in off else Power.RUNNING) for n in names)
    return InventorySeen(A, "sim", after(second), tuple(seen))


def fault(
    second: float,
    name: str = "n1",
    boot: str = "b1",
    code: str = "79",
    severity: Severity = Severity.CRITICAL,
) -> Probed:
    moment = after(second)
    text, hardware, node = "fell off the bus", FaultClass.HARDWARE, Channel.NODE
    found = Finding("xid", "gpu0", severity, hardware, text, node, moment, boot, code=code)
    return Probed(NodeName(name), moment, boot, (found,), complete=True)


def reached(second: float, boot: str, name: str = "n1") -> NodeReached:
    return NodeReached(NodeName(name), after(second), boot)


def held(*seen: Observation, until: float) -> Beliefs:
    """Return the beliefs after these facts and quiet listings each half hour until a moment."""
    offs = [one.at for one in seen if isinstance(one, InventorySeen)]
    every = 1800 if until < 100_000 else 86_400
    quiet = [listing(s) for s in range(0, int(until) + 1, every) if after(s) not in offs]
    return assess(Beliefs(), [*seen, *quiet], after(until))


def failures(beliefs: Beliefs) -> list[tuple[float, str]]:
    cohort = beliefs.cohorts["a/first"]
    return [((one.at - BEGIN).total_seconds(), one.node) for one in cohort.failures]


# --- the order does not matter ------------------------------------------------------------------


@st.composite
def lives(draw: st.DrawFn) -> list[Observation]:
    """Draw hours of a cohort: listings, faults, boots, with moments that lie close and far."""
    seen: list[Observation] = []
    second = 0.0
    for _ in range(draw(st.integers(1, 14))):
        second += draw(st.sampled_from([0.5, 3, 9, 20, 70, 700, 4_000, 20_000, 700_000]))
        name = draw(st.sampled_from(NAMES))
        kind, boot = draw(st.integers(0, 5)), f"b{1 + int(second // 5_000)}"
        if kind <= 2:
            off = draw(st.sets(st.sampled_from(NAMES), max_size=1 if kind else 3))
            names = NAMES if kind < 2 else draw(st.sampled_from([(), NAMES[:2], NAMES]))
            seen.append(listing(second, off, names))
        elif kind == 3:
            seen.append(fault(second, name, boot))
        else:
            seen.append(reached(second, boot, name))
    return seen


def mixed_up(seen: list[Observation], dice: random.Random) -> list[Observation]:
    """Return the facts as they may arrive: each late by up to the allowed lateness, some twice."""
    twice = [*seen, *dice.sample(seen, len(seen) // 3)]
    late = [(one.at + timedelta(seconds=dice.uniform(0, LATENESS - 1)), one) for one in twice]
    return [one for _, one in sorted(late, key=lambda pair: pair[0])]


@settings(max_examples=60, deadline=None)
@given(lives(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_late_doubled_and_reordered_facts_give_the_same_cohorts(
    seen: list[Observation], dice: random.Random, size: int
) -> None:
    now = after(10_000_000)
    whole = assess(Beliefs(), seen, now)
    arrived, parts = mixed_up(seen, dice), Beliefs()
    for begin in range(0, len(arrived), size):
        parts = assess(parts, arrived[begin : begin + size], now)
    assert parts == whole
    assert assess(whole, seen, now) == whole


# --- what counts --------------------------------------------------------------------------------


def test_machines_that_run_are_the_exposure() -> None:
    beliefs = held(listing(1800, off=["n2"]), until=1830)
    assert beliefs.cohorts["a/first"].phases.nodes == 3  # not drawn yet: earlier may still come
    later = assess(beliefs, [listing(1860, off=["n2"])], after(1861))
    assert later.cohorts["a/first"].phases.nodes == 2
    assert later.cohorts["a/first"].phases.seen_at == after(1800)


def test_a_list_that_names_nothing_is_not_believed() -> None:
    empty = InventorySeen(A, "sim", after(60), ())
    beliefs = assess(Beliefs(), [listing(0), empty, listing(90)], after(91))
    assert beliefs.cohorts["a/first"].phases.nodes == 3


def test_a_fault_its_power_and_its_reboot_are_one_failure() -> None:
    seen: list[Observation] = [
        fault(4_000),
        fault(4_060),
        listing(5_000, off=["n1"]),
        listing(5_400, off=["n1"]),
        reached(9_000, "b1"),
        reached(40_000, "b2"),  # a long repair: the boot that mends it
    ]
    assert failures(held(reached(10, "b1"), *seen, until=50_000)) == [(4_000, "n1")]


def test_a_boot_that_nobody_explains_is_a_failure() -> None:
    seen = [reached(10, "b1"), reached(4_000, "b2"), reached(4_030, "b2")]
    assert failures(held(*seen, until=10_000)) == [(4_000, "n1")]


def test_a_fault_that_comes_back_after_the_repair_is_another_failure() -> None:
    seen: list[Observation] = [
        reached(10, "b1"),
        fault(4_000),
        reached(6_000, "b2"),
        fault(40_000, boot="b2"),
    ]
    assert failures(held(*seen, until=50_000)) == [(4_000, "n1"), (40_000, "n1")]


def test_what_was_delivered_switched_off_did_not_fail() -> None:
    off = [listing(second, off=["n3"]) for second in (0, 1800, 3600)]
    assert failures(held(*off, listing(5_400), until=9_000)) == []


def test_a_fault_that_only_warns_or_is_not_explicit_is_no_failure() -> None:
    seen = [fault(4_000, code="13"), fault(4_060, severity=Severity.WARNING)]
    assert failures(held(*seen, until=10_000)) == []


def test_a_burst_is_one_incident_and_all_its_failures_are_remembered() -> None:
    off = [listing(second, off=NAMES) for second in range(3600, 7201, 1800)]
    beliefs = held(*off, until=20_000)
    assert [name for _, name in failures(beliefs)] == ["n1", "n2", "n3"]
    assert beliefs.cohorts["a/first"].phases.incidents == 1


def test_new_machines_are_an_announced_change() -> None:
    calm = held(until=90 * 86_400)
    phases = calm.cohorts["a/first"].phases
    assert phases.at(after(90 * 86_400)).p_chaotic < 0.3
    more = [listing(90 * 86_400 + s, names=(*NAMES, "n4")) for s in (60, 120)]
    beliefs = assess(calm, more, after(90 * 86_400 + 130))
    assert beliefs.cohorts["a/first"].phases.nodes == 4
    assert beliefs.cohorts["a/first"].phases.p_chaotic > 0.49


def order(second: float, subject: str, **body: object) -> Ordered:
    return Ordered(1, after(second), "ann", OrderKind.ANNOUNCE, subject, "new driver", body)


def test_people_announce_a_change_and_it_counts_once() -> None:
    calm = held(until=90 * 86_400)
    told = order(90 * 86_400 + 5, "a/first")
    later = [listing(90 * 86_400 + s) for s in (30, 60)]
    beliefs = assess(calm, [told, told, *later], after(90 * 86_400 + 61))
    phases = beliefs.cohorts["a/first"].phases
    assert phases == calm.cohorts["a/first"].phases.announced(told.at)
    assert phases.p_chaotic == pytest.approx(0.5)
    assert beliefs.clusters[A].announced == ()
    assert assess(beliefs, [told], after(90 * 86_400 + 62)).cohorts == beliefs.cohorts
    (answer,) = (
        one
        for one in reconcile(Fleet(after(90 * 86_400 + 61), beliefs=beliefs), Policy()).decisions
        if isinstance(one, SettleOrder)
    )
    assert answer.done


def test_people_tell_of_past_failures_as_at_least_so_many() -> None:
    begun = held(until=1_800)
    told = order(1_805, "a", at_least=20, weeks=1.0)
    beliefs = assess(begun, [told, listing(1_830)], after(1_831))
    before, phases = (one.cohorts["a/first"].phases for one in (begun, beliefs))
    assert phases.interval()[0] > 5 * before.at(phases.seen_at).interval()[0]


@pytest.mark.parametrize(
    "body", [{"at_least": 0, "weeks": 1}, {"at_least": 3}, {"at_least": 3, "weeks": float("nan")}]
)
def test_a_count_that_cannot_be_is_left_out(body: dict[str, object]) -> None:
    begun = held(until=1_800)
    beliefs = assess(begun, [order(1_805, "a", **body), listing(1_830)], after(1_831))
    assert beliefs.cohorts["a/first"].phases == begun.cohorts["a/first"].phases


def test_an_announcement_about_nothing_is_refused() -> None:
    beliefs = assess(held(until=1_800), [order(1_805, "z/first")], after(1_806))
    (answer,) = (
        one
        for one in reconcile(Fleet(after(1_806), beliefs=beliefs), Policy()).decisions
        if isinstance(one, SettleOrder)
    )
    assert not answer.done


def test_quiet_listings_leave_the_cohort_as_it_is() -> None:
    """Else its row would be written at every listing."""
    calm = held(until=3_600)
    later = assess(calm, [listing(3_630), listing(3_660)], after(3_661))
    assert later.cohorts["a/first"] is calm.cohorts["a/first"]


def test_a_cohort_survives_its_row() -> None:
    seen: list[Observation] = [reached(10, "b1"), fault(4_000), reached(6_000, "b2")]
    belief = held(*seen, until=50_000).cohorts["a/first"]
    assert codec.decode("CohortBelief", codec.encode(belief)) == belief


def test_failures_long_past_are_forgotten() -> None:
    belief = held(fault(4_000), until=8_000).cohorts["a/first"]
    old = replace(belief, failures=(Failure(BEGIN - timedelta(weeks=20), NodeName("n1")),))
    beliefs = replace(held(until=8_000), cohorts={belief.key: old})
    new = assess(beliefs, [fault(9_000, "n2"), listing(9_100)], after(9_101))
    assert [one.node for one in new.cohorts["a/first"].failures] == ["n2"]


def test_a_failure_counts_at_the_moment_it_was_true() -> None:
    belief = held(fault(4_000), until=8_000).cohorts["a/first"]
    first = Phases.begin(BEGIN, 3.0)
    assert belief.phases == first.failed(after(4_000))
