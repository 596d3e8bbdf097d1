"""A rank that makes all others wait is found by its own time, and nothing is done to it alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from orchestrator.core.fleet import Fleet
from orchestrator.core.nodes import NodeState
from orchestrator.core.slowness import CHECK
from orchestrator.core.verdicts import Channel, Finding, Severity
from tests.system.fleet import LocalFleet

pytestmark = [pytest.mark.system, pytest.mark.torch]

SCRIPT = """
import datetime, time
import torch, torch.distributed as dist
from orchestrator.runtime import training
run = training.join()
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=300))
data = torch.ones(8)
for step in range(1, 2000):
    time.sleep(0.25 if run.rank == 2 else 0.1)  # the work of a step
    dist.all_reduce(data)  # all steps take as long as the slowest
    run.heartbeat(step, loss=1.0)
run.close()
"""


def snapshot(fleet: LocalFleet) -> Fleet:
    return fleet.ledger.snapshot(datetime.now(UTC), ())


def test_a_slow_rank_of_a_real_gang_is_found_among_ranks_whose_steps_all_take_as_long(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    fleet = make_fleet(clusters={"ash": 4})
    work = fleet.folder / "work"
    work.mkdir()
    (work / "train.py").write_text(SCRIPT)
    fleet.start_daemon()
    fleet.submit(
        name="slow",
        command=["python", "train.py"],
        workdir=str(work),
        nodes=4,
        progress="heartbeat",
        register=str(fleet.folder / "register"),
        stop_grace="1s",
    )

    def found() -> list[Finding] | None:
        nodes = snapshot(fleet).beliefs.nodes.values()
        return [f for b in nodes for f in b.findings if f.check == CHECK and f.code] or None

    (finding,) = fleet.until("the straggler is found", found, limit=120)

    assert finding.severity is Severity.WARNING
    assert finding.channel is Channel.GANG
    assert finding.evidence.startswith("rank 2 works "), finding.evidence
    assert len(fleet.ranks("slow")) == 4
    assert {n.state for n in fleet.nodes().values()} == {NodeState.IN_USE}
