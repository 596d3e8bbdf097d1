"""The daemon on a cluster reached by SSH alone: a real sshd, tunnels, a changed host key."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.core.nodes import NodeState
from tests.system.fleet import LocalFleet
from tests.system.test_main_job import script
from tests.transports.conftest import sshd
from tests.transports.sshd import Sshd

__all__ = ["sshd"]

pytestmark = pytest.mark.system

Make = Callable[..., LocalFleet]


def ssh_cluster(server: Sshd, folder: Path, count: int = 3) -> dict[str, Any]:
    """Return a cluster whose nodes are folders behind one sshd."""
    return {
        "provider": "ssh",
        "nodes": [
            {"name": f"oak-{i}", "address": "127.0.0.1", "host_keys": [server.host_key]}
            for i in range(1, count + 1)
        ],
        "ssh": {
            "user": server.user,
            "port": server.port,
            "key": str(server.key),
            "folder": str(folder),
            "python": sys.executable,
        },
    }


def test_a_job_runs_over_ssh_survives_a_rank_and_the_daemon_and_leaves_nothing(
    make_fleet: Make, sshd: Sshd, tmp_path: Path
) -> None:
    fleet = make_fleet(clusters={"oak": ssh_cluster(sshd, tmp_path / "nodes")})
    work = script(fleet.folder)
    fleet.start_daemon()
    fleet.submit(
        name="far",
        command=["python", "train.py", str(work)],
        workdir=str(work),
        nodes=2,
        progress={"stdout": r"step (\d+)"},
        register=str(fleet.folder / "register"),
        stop_grace="1s",
    )
    ranks = fleet.until("two ranks run", lambda: len(r := fleet.ranks("far")) == 2 and r)
    os.kill(ranks[0].pid, signal.SIGKILL)
    fleet.daemons[-1].kill()
    fleet.daemons[-1].wait()
    fleet.start_daemon()
    job = fleet.finish("far", limit=120)
    assert job.state is JobState.SUCCEEDED
    assert (work / "done0").read_text() == f"{sum(range(1, 61))} of 2"
    assert len(fleet.ledger.attempts("far")) == 1
    fleet.until("nothing is left", lambda: not fleet.survivors())
    argv = " ".join(str(one) for one in fleet.events())
    assert "key=" not in argv


def test_a_node_that_shows_another_host_key_is_quarantined(
    make_fleet: Make, sshd: Sshd, tmp_path: Path
) -> None:
    fleet = make_fleet(
        clusters={"oak": ssh_cluster(sshd, tmp_path / "nodes", count=1)},
        policy={"probe_every": "1s"},
    )
    fleet.start_daemon()

    def state() -> NodeState | None:
        node = fleet.nodes().get("oak-1")
        return node.state if node else None

    fleet.until("it is trusted", lambda: state() is NodeState.SPARE)
    sshd.stop()
    sshd.change_host_key()
    sshd.start()
    fleet.until("it is quarantined", lambda: state() is NodeState.QUARANTINED)
    assert "host-key changed" in fleet.nodes()["oak-1"].reason
