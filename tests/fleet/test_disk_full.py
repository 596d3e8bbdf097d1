"""A real file system that fills up while checkpoints are written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.core.pages import Page
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from orchestrator.runtime.vault import open_vault
from tests.system.fleet import LocalFleet

pytestmark = [pytest.mark.root, pytest.mark.system]

SCRIPT = """
import sys, time, torch
from orchestrator.runtime import training
run = training.join(keep=1000)
loaded = run.resume()
step = loaded.step if loaded else 0
generator = torch.Generator().manual_seed(7)
while step < 30:
    step += 1
    state = {"model": {"w": torch.rand(60_000, generator=generator)}}
    run.save(step, state, learning_rate=0.1, tokens=step, cursor={}, config="c", rng="r")
    run.heartbeat(step, loss=1.0 / step)
    time.sleep(0.05)
run.close()
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "vault"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_makes_no_commit_visible_and_stops_nobody(
    make_fleet: Callable[..., LocalFleet], small_disk: Path
) -> None:
    fleet = make_fleet(clusters={"ash": 1})
    work = fleet.folder / "work"
    work.mkdir()
    (work / "train.py").write_text(SCRIPT)
    fleet.start_daemon()
    fleet.submit(
        name="full",
        command=["python", "train.py"],
        workdir=str(work),
        nodes=1,
        checkpoints=str(small_disk),
        register=str(fleet.folder / "register"),
    )

    job = fleet.finish("full", limit=90)
    assert job.state is JobState.SUCCEEDED
    assert fleet.events("commit-failed")
    assert Page.COMMIT_FAILED in {one.page for one in fleet.ledger.incidents(open_only=False)}
    lineage = Register(open_store(str(fleet.folder / "register"))).read()
    vault = open_vault(str(small_disk), register=str(fleet.folder / "register"))
    assert 0 < len(lineage.commits) < 30
    for commit in lineage.commits:
        assert vault.verify(commit).ok
