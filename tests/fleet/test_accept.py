"""Acceptance for real, with tests of links: slow, since each test of a pair loads torch twice."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from orchestrator.core.nodes import NodeState
from tests.system.fleet import LocalFleet

pytestmark = [pytest.mark.root, pytest.mark.system, pytest.mark.torch]

XID_79 = "[12.5] NVRM: Xid (PCI:0000:9b:00): 79, pid=1, GPU has fallen off the bus.\n"
QUICK = ("--soak", "1", "--pair-bytes", "4096", "--pair-limit", "30")


def test_a_cohort_is_burnt_in_and_its_bad_node_is_kept_out(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    fleet = make_fleet(clusters={"ash": 3}, policy={"burn_in": "10m", "repair": False})
    fleet.start_daemon()
    fleet.until("three nodes", lambda: len(fleet.nodes()) == 3)
    (fleet.state / "clusters/ash/ash-003/kernel.log").write_text(XID_79)
    report = fleet.folder / "report.html"
    argv = ("accept", "ash", "--yes", "-o", "json", "--report", str(report), *QUICK)

    said = fleet.holdfast(*argv, limit=240)

    assert said.returncode == 3, said.stderr
    found = json.loads(said.stdout)
    assert not found["passed"]
    nodes = {one["node"]: one for one in found["nodes"]}
    assert nodes["ash-003"]["standing"] == "rejected"
    assert "xid:79" in {one["detector"] for one in nodes["ash-003"]["faults"]}
    for good in ("ash-001", "ash-002"):
        # what this computer itself lacks (a limit, a time service) may stand against its nodes
        assert nodes[good]["standing"] != "rejected", nodes[good]
        assert nodes[good]["figures"]["gemm"]["host"] > 0
        assert "links" not in nodes[good]["missing"], found["links"]
    assert found["links"]["outcome"] in ("nothing", "unsure"), found["links"]
    assert "NOT passed" in report.read_text()
    assert "xid:79" in report.read_text()
    assert fleet.nodes()["ash-003"].state is NodeState.QUARANTINED
    assert fleet.nodes()["ash-003"].cordon is not None
