"""A rank that stops making progress: suspected early with its stack, ended late, and done again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.core.pages import Page
from orchestrator.runtime.stacks import find_py_spy
from tests.system.fleet import LocalFleet

pytestmark = pytest.mark.system

SCRIPT = """
import os, time
from orchestrator.runtime import training
run = training.join()
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

def stuck_in_my_code():
    while True:
        time.sleep(0.05)

for step in range(1, 61):
    time.sleep(0.01)
    if first and step == 40 and run.rank == 1:
        stuck_in_my_code()
    run.heartbeat(step, loss=1.0)
run.close()
"""


def test_a_rank_stuck_in_user_code_is_suspected_with_its_stack_then_ended(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    fleet = make_fleet(clusters={"ash": 2})
    work = fleet.folder / "work"
    work.mkdir()
    (work / "train.py").write_text(SCRIPT)
    fleet.start_daemon()
    fleet.submit(
        name="stuck",
        command=["python", "train.py"],
        workdir=str(work),
        nodes=2,
        progress="heartbeat",
        register=str(fleet.folder / "register"),
        limits={"floor": "3s"},
        stop_grace="1s",
    )

    job = fleet.finish("stuck", limit=90)
    assert job.state is JobState.SUCCEEDED
    suspected = fleet.events("suspected")
    hangs = fleet.events("hang")
    assert suspected
    assert hangs
    assert suspected[0].at < hangs[0].at
    assert "rank 1" in hangs[0].text
    told = [str(event.data) for event in suspected]
    assert any("stuck_in_my_code" in text or "wchan" in text for text in told), told


COLLECTIVE = """
import datetime, os, time
import torch, torch.distributed as dist
from orchestrator.runtime import training
run = training.join()
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=300))

def stuck_in_my_code():
    while True:
        time.sleep(0.05)

data = torch.ones(8)
for step in range(1, 61):
    time.sleep(0.02)
    if first and step == 45 and run.rank == 2:
        stuck_in_my_code()
    dist.all_reduce(data)
    run.heartbeat(step, loss=1.0)
run.close()
"""


@pytest.mark.torch
def test_the_rank_that_never_came_is_named_with_its_stack_before_anything_ends(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    """Four ranks over gloo; one is stuck in its own code, the others wait for it."""
    pytest.importorskip("torch", reason="torch is not installed")
    if find_py_spy() is None:
        pytest.skip("py-spy is not installed: there are no stacks to judge")
    fleet = make_fleet(clusters={"ash": 4})
    work = fleet.folder / "work"
    work.mkdir()
    (work / "train.py").write_text(COLLECTIVE)
    fleet.start_daemon()
    fleet.submit(
        name="stuck",
        command=["python", "train.py"],
        workdir=str(work),
        nodes=4,
        progress="heartbeat",
        register=str(fleet.folder / "register"),
        limits={"floor": "60s"},
        stop_grace="1s",
    )

    def named() -> str | None:
        open_ones = fleet.ledger.incidents(open_only=True)
        told = [one.reason for one in open_ones if one.page == Page.HANG_SUSPECTED]
        return next((one for one in told if "stuck_in_my_code" in one), None)

    reason = fleet.until("the culprit is named", named, limit=150)

    assert "rank 2 stopped at 44, others entered all_reduce 45" in reason, reason
    assert not fleet.events("hang", "rank-exited")  # nothing was ended for it
    assert len(fleet.ranks("stuck")) == 4
    suspected = fleet.events("suspected")
    incident = next(
        one for one in fleet.ledger.incidents(open_only=True) if one.page == Page.HANG_SUSPECTED
    )
    took = (incident.opened_at - min(one.at for one in suspected)).total_seconds()
    print(f"named {took:.1f} s after the first suspicion was recorded")
    assert took <= 10
