"""The wire schema: what crosses comes back the same, and what is not ours is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthchecks.findings import (
    EVIDENCE_MAX,
    BadFindingError,
    Coverage,
    Fault,
    Finding,
    Severity,
    decode,
    encode,
    encode_coverage,
    line,
    worst,
)
from orchestrator.core import verdicts

FINDING = Finding("xid", "gpu5", Severity.CRITICAL, Fault.HARDWARE, "Xid 79", "79", "reboot")

plain = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), max_size=40)
findings = st.builds(
    Finding,
    check=plain,
    component=plain,
    severity=st.sampled_from(Severity),
    fault=st.sampled_from(Fault),
    evidence=plain,
    code=plain,
    remedy=plain,
    serial=plain,
    observed_at=st.floats(0, 4e9),
    boot_id=plain,
    cost=st.floats(0, 60),
)


@given(findings)
def test_a_finding_survives_the_wire(finding: Finding) -> None:
    assert decode(json.loads(line(encode(finding)))) == finding


def test_the_wire_has_the_fields_of_the_core_s_finding() -> None:
    wire = set(encode(FINDING)) - {"version"}
    core = {"class" if name == "fault" else name for name in verdicts.Finding.__dataclass_fields__}
    assert wire == core - {"told_at"}  # of the controller's own clock


def test_severities_and_classes_are_those_of_the_core() -> None:
    assert {one.name: one.value for one in Severity} == {
        one.name: one.value for one in verdicts.Severity
    }
    assert {one.value for one in Fault} == {one.value for one in verdicts.FaultClass}


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"severity": "BAD"}, {"severity": 2}, {"class": "weather"}, {"version": None}],
)
def test_what_is_no_finding_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadFindingError):
        decode({**encode(FINDING), **change})


def test_a_line_without_its_fields_is_refused() -> None:
    with pytest.raises(BadFindingError):
        decode({"version": 1, "severity": "OK", "class": "hardware"})


def test_unknown_keys_of_the_same_version_are_ignored() -> None:
    assert decode({**encode(FINDING), "later": 1}) == FINDING


def test_evidence_is_cut_and_made_harmless() -> None:
    sent = encode(FINDING._replace(evidence="\x1b[31m\n" + "x" * 1000))["evidence"]
    assert len(sent) == EVIDENCE_MAX
    assert sent.startswith(" [31m x")


def test_unknown_is_graver_than_a_warning_and_less_than_critical() -> None:
    assert worst([Severity.WARNING, Severity.UNKNOWN, Severity.OK]) is Severity.UNKNOWN
    assert worst([Severity.UNKNOWN, Severity.CRITICAL]) is Severity.CRITICAL
    assert worst([]) is Severity.OK


def test_coverage_is_complete_only_if_every_check_is_accounted_for_once() -> None:
    whole = Coverage(("a", "b", "c"), ("a",), ("b",), {"c": "no reason is no answer"})
    assert whole.complete
    assert not whole._replace(skipped={}).complete
    assert not whole._replace(passed=("a", "b")).complete
    assert encode_coverage(whole)["coverage"]["complete"] is True
