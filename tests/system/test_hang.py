"""A rank that stops making progress: suspected early with its stack, ended late, and done again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.jobs import JobState
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
