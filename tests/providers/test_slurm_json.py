"""Slurm's JSON of both kinds, and whatever else a broken one may say."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.engines.slurm import HoldingJob, parse_jobs
from orchestrator.errors import TransientError
from providers.slurm import parse_nodes

OLD = {
    "name": "n1",
    "state": "mixed",
    "state_flags": ["DRAIN"],
    "address": "10.0.0.1",
    "reason": "holdfast: XID 79",
    "reason_set_by_user": "root",
    "gres": "gpu:h100:8,nic:2",
}
NEW = {**OLD, "state": ["MIXED", "DRAIN"], "state_flags": None, "gres": "gpu:h100:8(S:0-1)"}
ROW = {
    "node": {"state": ["MIXED", "DRAIN"]},
    "nodes": {"nodes": ["n1"], "addresses": ["10.0.0.1"]},
    "reason": {"description": "holdfast: XID 79", "user": "root"},
    "gres": {"total": "gpu:h100:8"},
}


@pytest.mark.parametrize("body", [{"nodes": [OLD]}, {"nodes": [NEW]}, {"sinfo": [ROW]}])
def test_a_drained_node_is_the_same_in_every_version(body: dict[str, Any]) -> None:
    (node,) = parse_nodes(json.dumps(body).encode())
    assert (node.name, node.address, node.gpus) == ("n1", "10.0.0.1", 8)
    assert node.drained
    assert node.ours
    assert "MIXED" in node.states


def test_a_drain_of_somebody_else_is_not_ours() -> None:
    (node,) = parse_nodes(json.dumps({"nodes": [{**OLD, "reason": "fan noise"}]}).encode())
    assert node.drained
    assert not node.ours


@pytest.mark.parametrize(
    "row",
    [
        {"name": "holdfast-n1", "job_id": 7, "job_state": "RUNNING", "state_reason": "None"},
        {
            "name": "holdfast-n1",
            "job_id": {"set": True, "infinite": False, "number": 7},
            "job_state": ["RUNNING"],
            "state_reason": "None",
        },
    ],
)
def test_a_holding_job_is_the_same_in_every_version(row: dict[str, Any]) -> None:
    others = {"name": "train", "job_id": 8, "job_state": "RUNNING"}
    found = parse_jobs(json.dumps({"jobs": [others, row]}).encode())
    assert found == [HoldingJob(7, "n1", "RUNNING", "None")]


@pytest.mark.parametrize("out", [b"", b"slurm_load_node error", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_json_object_is_an_error_that_may_pass(out: bytes) -> None:
    with pytest.raises(TransientError):
        list(parse_nodes(out))
    with pytest.raises(TransientError):
        parse_jobs(out)


#: What 22.05 prints, with exit code 0, while slurmctld does not answer.
DOWN = {"errors": [{"error": "Unspecified error", "errno": -1}], "nodes": [], "jobs": []}


@pytest.mark.parametrize("errors", [DOWN["errors"], [{}], ["down"], {"error": "down"}, "down", 7])
def test_an_empty_list_beside_an_error_is_not_a_list_of_nothing(errors: Any) -> None:
    out = json.dumps({**DOWN, "errors": errors}).encode()
    with pytest.raises(TransientError, match="answered with an error"):
        parse_nodes(out)
    with pytest.raises(TransientError, match="answered with an error"):
        parse_jobs(out)
    fine = json.dumps({**DOWN, "errors": []}).encode()
    assert parse_nodes(fine) == []
    assert parse_jobs(fine) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below),
    max_leaves=5,
)


@given(st.sampled_from([*OLD, "jobs"]), VALUES)
def test_no_answer_of_slurm_crashes_us(key: str, value: Any) -> None:
    for body in ({"nodes": [{**OLD, key: value}]}, {"nodes": value}, {"sinfo": [value]}):
        try:
            list(parse_nodes(json.dumps(body).encode()))
            parse_jobs(json.dumps({"jobs": value}).encode())
        except TransientError:
            continue
