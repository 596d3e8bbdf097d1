from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from orchestrator.core.verdicts import Channel, Severity
from orchestrator.observers.findings import FINDINGS_MAX, parse, parse_all, parse_output

GOOD: dict[str, Any] = {
    "version": 1,
    "check": "xid",
    "component": "gpu5",
    "severity": "CRITICAL",
    "class": "hardware",
    "evidence": "XID 79: GPU has fallen off the bus",
    "channel": "operator",
    "observed_at": 1_790_000_000.0,
    "boot_id": "b1",
    "code": "79",
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=8,
)


def test_a_finding_is_read_and_names_its_detector() -> None:
    finding = parse(GOOD)
    assert finding is not None
    assert (finding.detector, finding.severity) == ("xid:79", Severity.CRITICAL)


def test_a_node_cannot_speak_for_another_channel() -> None:
    finding = parse(GOOD)
    assert finding is not None
    assert finding.channel is Channel.NODE


@given(st.sampled_from(sorted(GOOD)), json_values)
def test_no_value_of_a_node_crashes_the_reader(name: str, value: Any) -> None:
    finding = parse({**GOOD, name: value})
    assert finding is None or all(one.isprintable() for one in finding.evidence)


def test_a_node_cannot_flood_us() -> None:
    bodies = [{**GOOD, "component": f"gpu{number}"} for number in range(FINDINGS_MAX * 2)]
    assert len(parse_all(bodies)) == FINDINGS_MAX


def test_the_worse_of_two_findings_of_one_component_wins() -> None:
    later = {**GOOD, "severity": "OK", "observed_at": GOOD["observed_at"] + 1}
    for order in ([GOOD, later], [later, GOOD]):
        (finding,) = parse_all(order)
        assert finding.severity is Severity.CRITICAL


def test_a_run_is_complete_only_if_its_coverage_adds_up() -> None:
    def output(coverage: dict[str, Any]) -> bytes:
        return "\n".join([json.dumps(GOOD), json.dumps({"coverage": coverage})]).encode()

    whole = {"expected": ["xid", "disk"], "passed": ["disk"], "failed": ["xid"], "skipped": {}}
    assert parse_output(output(whole))[1]
    assert not parse_output(output({**whole, "passed": []}))[1]
    assert not parse_output(json.dumps(GOOD).encode())[1]


@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_a_crash(out: bytes) -> None:
    findings, complete = parse_output(out)
    assert findings == ()
    assert not complete
