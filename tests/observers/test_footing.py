"""What is concluded from what a node says, whatever it says."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.errors import TransientError
from orchestrator.observers.footing import RULES, Seen, Verdict, judge
from tests.hostile import HOSTILE

NOW = 1_700_000_000.0
WELL: dict[str, Any] = {
    "python": [3, 11],
    "clock": NOW,
    "free": 1 << 40,
    "inodes": 10**6,
    "files": 10**7,
    "writable": True,
    "private": True,
    "made": False,
    "programs": {"timeout": True, "env": True, "test": True},
    "gpus": 8,
}


def verdicts(seconds: float = 0.1, **changed: Any) -> dict[str, Verdict]:
    findings = judge("n1", Seen({**WELL, **changed}, seconds, NOW), 8)
    return {one.check: one.verdict for one in findings if one.verdict is not Verdict.OK}


def test_a_node_that_is_well_has_no_finding() -> None:
    assert verdicts() == {}


@pytest.mark.parametrize(
    ("changed", "check", "verdict"),
    [
        ({"python": [3, 9]}, "python", Verdict.BAD),
        ({"python": [4, 0]}, "python", None),
        ({"programs": {"timeout": False}}, "programs", Verdict.BAD),
        ({"private": False}, "folder", Verdict.BAD),
        ({"writable": False}, "folder", Verdict.BAD),
        ({"free": 1 << 29}, "disk", Verdict.BAD),
        ({"inodes": 3}, "disk", Verdict.BAD),
        ({"inodes": 0, "files": 0}, "disk", None),  # a file system without inodes
        ({"clock": NOW + 7200}, "clock", Verdict.WARN),
        ({"clock": NOW - 7200}, "clock", Verdict.WARN),
        ({"seconds": 9.0, "clock": NOW + 5}, "reach", Verdict.WARN),
        ({"gpus": 7}, "gpus", Verdict.BAD),
        ({"gpus": 9}, "gpus", Verdict.WARN),
    ],
)
def test_each_rule(changed: dict[str, Any], check: str, verdict: Verdict | None) -> None:
    assert verdicts(**changed) == ({} if verdict is None else {check: verdict})


def test_a_node_that_is_not_reached_has_one_finding() -> None:
    (finding,) = judge("n1", TransientError("n1: no route to host\x1b[2J"), 8)
    assert (finding.check, finding.verdict) == ("reach", Verdict.BAD)
    assert "\x1b" not in finding.says


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(HOSTILE),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below),
    max_leaves=5,
)


@given(st.sampled_from(sorted(WELL)), JSON)
def test_no_answer_of_a_node_crashes_us_or_steers_a_terminal(key: str, value: Any) -> None:
    said = json.loads(json.dumps({**WELL, key: value}))
    findings = judge("n1", Seen(said, 0.1, NOW), 8)
    assert [one.check for one in findings] == list(RULES)
    assert all(one.says.isprintable() and len(one.says) <= 300 for one in findings)


@given(st.sampled_from(sorted(WELL)))
def test_what_a_node_does_not_say_is_a_finding(key: str) -> None:
    said = {name: value for name, value in WELL.items() if name != key}
    findings = judge("n1", Seen(said, 0.1, NOW), 8)
    assert any(one.verdict is Verdict.BAD for one in findings)
