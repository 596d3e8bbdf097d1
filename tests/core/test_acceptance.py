"""Whether a cohort is accepted: pure, from what nodes tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.core.acceptance import LINKS, Plan, Ran, Stage, Standing, judge
from orchestrator.core.localise import Culprits, Outcome
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity

PLAN = Plan(frozenset({"xid", "kernel", "limits"}), accelerators=8)
AT = datetime(2026, 1, 1, tzinfo=UTC)
FINE = Culprits(Outcome.NOTHING, posterior=0.999)


def finding(detector: str, severity: Severity, fault: FaultClass = FaultClass.HARDWARE) -> Finding:
    check, _, code = detector.partition(":")
    return Finding(check, "gpu3", severity, fault, "seen", Channel.NODE, AT, code=code)


def whole(**more: object) -> dict[Stage, Ran]:
    rate = {"gpu0": 800.0, "gpu1": 805.0, **more}
    runs = {}
    for stage in Stage:
        figures = {"gemm": rate} if stage is Stage.ACTIVE else {}
        runs[stage] = Ran(covered=PLAN.checks(stage), figures=figures)  # type: ignore[arg-type]
    return runs


def with_finding(one: Finding, stage: Stage = Stage.PASSIVE) -> dict[Stage, Ran]:
    runs = whole()
    return {**runs, stage: Ran((one,), covered=PLAN.checks(stage), figures=runs[stage].figures)}


def cohort(**special: dict[Stage, Ran]) -> dict[str, dict[Stage, Ran]]:
    return {**{f"n{one}": whole() for one in range(6)}, **special}


def standing(runs: dict[str, dict[Stage, Ran]], node: str, links: Culprits | None = FINE) -> str:
    found = judge(PLAN, runs, links)
    return next(one.standing for one in found.nodes if one.node == node)


def test_a_cohort_is_accepted_if_all_was_looked_at_and_nothing_is_wrong() -> None:
    found = judge(PLAN, cohort(), FINE)
    assert found.passed
    assert {one.coverage for one in found.nodes} == {1.0}
    assert not judge(PLAN, {}, None).passed


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (finding("xid:79", Severity.CRITICAL), Standing.REJECTED),
        (finding("remap:pending", Severity.WARNING), Standing.REJECTED),
        (finding("modes:mig", Severity.WARNING, FaultClass.CONFIG), Standing.TO_CORRECT),
        (finding("disk:full", Severity.CRITICAL, FaultClass.CONFIG), Standing.REJECTED),
        (finding("gemm:slow", Severity.WARNING), Standing.ACCEPTED),  # the lottery of silicon
        (finding("gemm:slow", Severity.CRITICAL), Standing.REJECTED),
        (finding("xid", Severity.UNKNOWN), Standing.ACCEPTED),
        (finding("xid", Severity.OK), Standing.ACCEPTED),
    ],
    ids=lambda one: one.detector if isinstance(one, Finding) else str(one),
)
def test_new_hardware_has_no_excuse(one: Finding, expected: Standing) -> None:
    assert standing(cohort(bad=with_finding(one)), "bad") is expected
    assert standing(cohort(bad=with_finding(one, Stage.AFTER)), "bad") is expected


@pytest.mark.parametrize("stage", [one for one in Stage if one is not Stage.LINKS])
def test_what_was_not_looked_at_is_never_accepted(stage: Stage) -> None:
    runs = whole()
    short = {**runs, stage: Ran(covered=frozenset(sorted(PLAN.checks(stage))[1:]))}
    assert standing(cohort(bad=short), "bad") is Standing.INCOMPLETE
    del runs[stage]
    assert standing(cohort(bad=runs), "bad") is Standing.INCOMPLETE
    # its own word that it skipped the check, or that nothing else was to be done, is no excuse
    skipped = dict.fromkeys(PLAN.checks(stage), "not here")
    runs[stage] = Ran(skipped=skipped, expected=frozenset())
    assert standing(cohort(bad=runs), "bad") is Standing.INCOMPLETE
    assert not judge(PLAN, cohort(bad=runs), FINE).passed


def test_what_the_cohort_does_not_have_is_not_asked_for() -> None:
    plan = Plan(frozenset({"xid", "infiniband"}), accelerators=0)
    assert plan.excuse("xid")
    assert plan.excuse("infiniband")
    assert Plan(frozenset(), 8, {"ib_ports": 8}).excuse("infiniband") is None
    assert Plan(frozenset(), 8).excuse("xid") is None


def test_a_rate_far_below_the_cohort_s_median_is_rejected() -> None:
    assert standing(cohort(bad=whole(gpu1=700.0)), "bad") is Standing.REJECTED
    assert standing(cohort(bad=whole(gpu1=780.0)), "bad") is Standing.ACCEPTED


def test_other_bits_than_most_are_silent_corruption() -> None:
    def trained(digest: str, part: str = "gpu0") -> dict[Stage, Ran]:
        figures = {"repeat": {part: f"H100/2.11/{digest}"}}
        ran = Ran(covered=PLAN.checks(Stage.TRAINING), figures=figures)
        return {**whole(), Stage.TRAINING: ran}

    runs = {f"n{one}": trained("aa") for one in range(3)}
    assert standing({**runs, "bad": trained("ab")}, "bad") is Standing.REJECTED
    hosts = {f"n{one}": trained("aa", "host") for one in range(3)}  # processors may differ
    assert standing({**hosts, "other": trained("ab", "host")}, "other") is Standing.ACCEPTED


def test_links_that_are_not_known_to_be_good_are_no_pass() -> None:
    found = Culprits(Outcome.FOUND, frozenset({"n2"}), None, 0.995, reason="n2: 0.995")
    assert standing(cohort(), "n2", found) is Standing.REJECTED
    assert standing(cohort(), "n1", found) is Standing.ACCEPTED
    rails = replace(found, rails={"n2": ("mlx5_1", "mlx5_3")})
    judged = next(one for one in judge(PLAN, cohort(), rails).nodes if one.node == "n2")
    assert {one.component for one in judged.faults} == {"mlx5_1", "mlx5_3"}
    for unknown in (Culprits(Outcome.UNSURE, reason="?"), Culprits(Outcome.SHARED), None):
        result = judge(PLAN, cohort(), unknown)
        assert not result.passed
        assert all(LINKS in one.missing for one in result.nodes)
    assert judge(PLAN, {"n1": whole()}, None).passed  # a single node has no links to test
