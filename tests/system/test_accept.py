"""Acceptance for real: a delivered cohort burnt in, one node of it with a fault in its log."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from orchestrator.core.nodes import NodeState
from tests.system.fleet import LocalFleet

pytestmark = [pytest.mark.system, pytest.mark.torch]

XID_79 = "[12.5] NVRM: Xid (PCI:0000:9b:00): 79, pid=1, GPU has fallen off the bus.\n"
QUICK = ("--soak", "1", "--pair-bytes", "4096", "--pair-limit", "30")


def test_a_cohort_is_burnt_in_and_its_bad_node_is_kept_out(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    fleet = make_fleet(clusters={"ash": 2}, policy={"burn_in": "10m", "repair": False})
    fleet.start_daemon()
    fleet.until("two nodes", lambda: len(fleet.nodes()) == 2)
    (fleet.state / "clusters/ash/ash-002/kernel.log").write_text(XID_79)
    report = fleet.folder / "report.html"
    argv = ("accept", "ash", "--yes", "-o", "json", "--report", str(report), *QUICK)

    said = fleet.holdfast(*argv, limit=240)

    assert said.returncode == 3, said.stderr
    found = json.loads(said.stdout)
    assert not found["passed"]
    nodes = {one["node"]: one for one in found["nodes"]}
    assert nodes["ash-002"]["standing"] == "rejected"
    assert "xid:79" in {one["detector"] for one in nodes["ash-002"]["faults"]}
    good = nodes["ash-001"]
    # its link had nobody to be tested with, and this computer may lack something that a job needs
    assert good["standing"] in ("incomplete", "to correct"), good
    assert set(good["missing"]) == {"links"}, good
    assert good["figures"]["gemm"]["host"] > 0
    assert "NOT passed" in report.read_text()
    assert "xid:79" in report.read_text()
    assert fleet.nodes()["ash-002"].state is NodeState.QUARANTINED
    assert fleet.nodes()["ash-002"].cordon is not None
