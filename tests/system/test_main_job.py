"""The main job with a script that is not ours: killed in the middle, it ends as if nothing was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.core.jobs import JobState
from tests.system.fleet import LocalFleet

pytestmark = pytest.mark.system

Make = Callable[..., LocalFleet]

#: A torchrun-style script: it knows nothing of Holdfast, writes its own checkpoints, and imports a
#: module called `model`, which must be its own and not ours.
SCRIPT = """
import json, os, pathlib, sys, time
import model
folder = pathlib.Path(sys.argv[1])
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
assert model.MINE and os.environ["MASTER_ADDR"] and int(os.environ["MASTER_PORT"])
state = folder / f"state{rank}.json"
step, total = json.loads(state.read_text()) if state.exists() else (0, 0)
while step < 60:
    step += 1
    total += step * (rank + 1)
    fresh = state.with_suffix(".new")
    fresh.write_text(json.dumps([step, total]))
    fresh.replace(state)
    print(f"step {step}", flush=True)
    time.sleep(0.05)
(folder / f"done{rank}").write_text(f"{total} of {world}")
"""


def script(folder: Path) -> Path:
    work = folder / "work"
    work.mkdir(parents=True)
    (work / "train.py").write_text(SCRIPT)
    (work / "model.py").write_text("MINE = True\n")
    return work


def submit(fleet: LocalFleet, work: Path) -> None:
    fleet.submit(
        name="plain",
        command=["python", "train.py", str(work)],
        workdir=str(work),
        nodes=2,
        progress={"stdout": r"step (\d+)"},
        register=str(fleet.folder / "register"),
        stop_grace="1s",
    )


def test_a_plain_script_survives_the_death_of_a_rank_and_of_the_daemon(make_fleet: Make) -> None:
    fleet = make_fleet()
    work = script(fleet.folder)
    fleet.start_daemon()
    submit(fleet, work)
    ranks = fleet.until("two ranks run", lambda: len(r := fleet.ranks("plain")) == 2 and r)
    os.kill(ranks[1].pid, signal.SIGKILL)
    again = fleet.until(
        "two new ranks run",
        lambda: (
            len(r := fleet.ranks("plain")) == 2
            and {one.pid for one in r}.isdisjoint(one.pid for one in ranks)
            and r
        ),
    )
    fleet.daemons[-1].kill()
    fleet.daemons[-1].wait()
    fleet.start_daemon()
    job = fleet.finish("plain")
    assert job.state is JobState.SUCCEEDED
    total = sum(range(1, 61))
    assert (work / "done0").read_text() == f"{total} of 2"
    assert (work / "done1").read_text() == f"{2 * total} of 2"
    assert {event.data.get("generation") for event in fleet.events("generation-formed")}
    assert len(fleet.ledger.attempts("plain")) == 1  # adopted: no gang was started twice
    assert again
    fleet.until("nothing is left", lambda: not fleet.survivors())
