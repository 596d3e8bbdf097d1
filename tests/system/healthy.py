"""A healthy job that looks ill: it sleeps inside its ranks, saves slowly and loads slowly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.core.jobs import JobState
from tests.system.fleet import LocalFleet

#: Pauses reach 80 % of the hang limit, which is the floor for steps this short. Both ranks wait
#: for each other each step through files, so that a pause of one stalls the other as well.
SCRIPT = """
import os, pathlib, random, sys, time
from orchestrator.runtime import training
seed, steps, floor = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
folder = pathlib.Path(sys.argv[4])
run = training.join()
dice = random.Random(seed * 1000 + run.rank)
pauses = set(dice.sample(range(30, steps), 2 if steps <= 100 else 4))
for step in range(1, steps + 1):
    time.sleep(0.005)
    if step in pauses:
        time.sleep(0.8 * floor * dice.random())
    if step % 50 == 0:
        with run.phase("checkpoint"):
            time.sleep(0.3 * dice.random())
    (folder / f"{run.rank}.{step}").touch()
    while not (folder / f"{1 - run.rank}.{step}").exists():
        time.sleep(0.001)
    run.heartbeat(step, loss=1.0)
run.close()
"""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` processes computing beside the job."""
    loop = [sys.executable, "-c", "while True: sum(range(10000))"]
    processes = [subprocess.Popen(["nice", "-n", "5", *loop]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def run_healthy_job(fleet: LocalFleet, *, seed: int, steps: int, floor: float) -> None:
    """Run it to its end and assert that it ran in one generation, undisturbed."""
    work, meeting = fleet.folder / "work", fleet.folder / "meeting"
    work.mkdir()
    meeting.mkdir()
    (work / "train.py").write_text(SCRIPT)
    fleet.start_daemon()
    fleet.submit(
        name="healthy",
        command=["python", "train.py", str(seed), str(steps), str(floor), str(meeting)],
        workdir=str(work),
        nodes=2,
        progress="heartbeat",
        register=str(fleet.folder / "register"),
        limits={"floor": f"{floor:g}s"},
    )

    job = fleet.finish("healthy", limit=120 + steps * 0.05 + 8 * floor)
    assert job.state is JobState.SUCCEEDED, f"seed {seed}"
    assert len(fleet.events("generation-formed")) >= 1
    formed = {event.data.get("seq", event.text) for event in fleet.events("generation-formed")}
    hangs = fleet.events("hang", "rank-stopped", "rank-exited")
    assert hangs == [], f"seed {seed}: {[event.text for event in hangs]}"
    assert len(formed) <= 2, f"seed {seed}: {formed}"
