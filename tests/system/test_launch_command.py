"""`launch: command`: torchrun as one opaque process per node, restarted as a whole."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.runtime import processes
from tests.system.fleet import LocalFleet

pytestmark = [pytest.mark.system, pytest.mark.torch]

SCRIPT = """
import os, pathlib, sys, time
rank = os.environ["RANK"]
folder = pathlib.Path(sys.argv[1])
with (folder / "starts").open("a") as log:
    log.write(rank + " ")
for step in range(60):
    print("step", step, flush=True)
    time.sleep(0.05)
(folder / ("done" + rank)).touch()
"""


def test_torchrun_is_started_again_as_a_whole(make_fleet: Callable[..., LocalFleet]) -> None:
    torchrun = shutil.which("torchrun", path=str(Path(sys.executable).parent))
    if torchrun is None:
        pytest.skip("torchrun is not installed beside this Python")
    fleet = make_fleet(clusters={"ash": 1})
    work = fleet.folder / "work"
    work.mkdir()
    (work / "train.py").write_text(SCRIPT)
    fleet.start_daemon()
    fleet.submit(
        name="opaque",
        launch="command",
        command=[torchrun, "--standalone", "--nproc-per-node", "2", "train.py", str(work)],
        workdir=str(work),
        nodes=1,
        progress={"stdout": r"step (\d+)"},
        register=str(fleet.folder / "register"),
        stop_grace="1s",
    )
    starts = work / "starts"
    fleet.until("both workers run", lambda: starts.exists() and len(starts.read_text()) >= 4)
    marked = [
        one
        for one in processes.every()
        if (processes.environment(one.pid) or {}).get("HOLDFAST_RUN") == "opaque.1"
    ]
    workers = [
        one
        for one in marked
        if "RANK" in (processes.environment(one.pid) or {})
        and "WORLD_SIZE" in (processes.environment(one.pid) or {})
    ]
    launchers = {one.parent for one in workers}
    for pid in launchers:
        os.kill(pid, signal.SIGKILL)  # its workers stay behind: they must be gone first

    job = fleet.finish("opaque", limit=90)
    assert job.state is JobState.SUCCEEDED
    assert sorted(starts.read_text().split()) == ["0", "0", "1", "1"]
    assert (work / "done0").exists()
    assert (work / "done1").exists()
    fleet.until("nothing is left", lambda: not fleet.survivors())
