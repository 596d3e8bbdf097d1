"""Six clusters under one daemon, three jobs, random faults: no committed step is lost.

Two clusters of real sshd, one real Slurm, three of local nodes; each job may run on two of them. It
lasts HOLDFAST_SOAK_MINUTES (30). And a second question: what do the other clusters notice while all
nodes of one hang?
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.jobs import OVER, JobState
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from tests.fleet import slurm as slurms
from tests.fleet.rack import Rack
from tests.fleet.slurm import Slurm
from tests.fleet.weather import Weather
from tests.system.fleet import LocalFleet

pytestmark = [pytest.mark.root, pytest.mark.soak, pytest.mark.system, pytest.mark.timeout(7200)]

ROOT = Path(__file__).parents[2]
MINUTES = float(os.environ.get("HOLDFAST_SOAK_MINUTES", "30"))
PAUSE = 0.5  #: seconds of a step
EVERY = 15.0  #: seconds between two faults
HANG = 60.0  #: seconds that a whole cluster hangs, and as long before that without
HOMES = {"one": ["oak", "ash"], "two": ["fir", "elm"], "three": ["yew", "oak"]}
POLICY: dict[str, Any] = {
    "burn_in": "2s",
    "patience": "10s",
    "silence_max": "20s",
    "sweep_after": "30s",
    "seat_wait": "30s",
    "standbys": 1,
    "evictions_per_hour": 100,
    "quarantine_share": 0.5,
    "intent_limit": "30s",
    "inventory_every": "3s",
}


@pytest.fixture
def slurm(lan: Rack, tmp_path: Path) -> Iterator[Slurm]:
    del lan  # its network is made first
    lacks = slurms.missing()
    if lacks is not None:
        pytest.skip(lacks)
    made = Slurm(tmp_path / "slurm", 3)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def fleet(
    make_fleet: Callable[..., LocalFleet], lan: Rack, slurm: Slurm, tmp_path: Path
) -> LocalFleet:
    inside = {"conf": str(slurm.conf), "folder": str(tmp_path / "far"), "python": sys.executable}
    made = make_fleet(
        clusters={
            "oak": lan.cluster(*lan.names[:3]),
            "elm": lan.cluster(*lan.names[3:]),
            "fir": {"provider": "slurm", "nodes": slurm.nodes, "slurm": inside},
            "ash": 3,
            "yew": 3,
            "bay": 2,
        },
        policy=POLICY,
        health={"kernel_log": "/dev/null", "every": "5s"},
    )
    made.start_daemon()
    made.until("all six are there", lambda: len(made.nodes()) == 17, 120)
    return made


def submit(fleet: LocalFleet, name: str, steps: int) -> None:
    fleet.submit(
        name=name,
        command=["python", "steady.py", "--steps", str(steps), "--pause", str(PAUSE)],
        workdir=str(ROOT / "examples"),
        nodes=2,
        clusters=HOMES[name],
        checkpoints=str(fleet.folder / "vaults" / name),
        stop_grace="1s",
        budget={"generations": 100_000, "attempts": 100_000},
        env={"OMP_NUM_THREADS": "1"},
    )


def test_no_committed_step_is_lost_and_every_job_finishes(
    fleet: LocalFleet, lan: Rack, slurm: Slurm
) -> None:
    seed = int(os.environ.get("HOLDFAST_SEED", "1"))
    print(f"seed {seed} (HOLDFAST_SEED), {MINUTES:g} minutes (HOLDFAST_SOAK_MINUTES)", flush=True)
    weather = Weather(fleet, lan, slurm, tuple(HOMES), random.Random(seed))
    steps = int(MINUTES * 60 / PAUSE)
    for name in HOMES:
        submit(fleet, name, steps)
    fleet.until("they commit", lambda: all(commits(fleet, name) for name in HOMES), 240)
    end, next_one = time.monotonic() + MINUTES * 60, 0.0
    while time.monotonic() < end and not all(over(fleet, name) for name in HOMES):
        if time.monotonic() >= next_one:
            weather.strike()
            next_one = time.monotonic() + EVERY
        weather.clear_up()
        time.sleep(0.5)
    weather.clear_up(everything=True)
    for name in HOMES:
        assert fleet.finish(name, limit=1800).state is JobState.SUCCEEDED, fleet.job(name)
        assert_nothing_lost(fleet, name, steps)
    print(f"happened: {dict(sorted(weather.happened.items()))}", flush=True)
    assert sum(weather.happened.values()) >= MINUTES


def commits(fleet: LocalFleet, name: str) -> int:
    folder = fleet.folder / "vaults" / name
    return len(Register(open_store(str(folder))).read().commits) if folder.exists() else 0


def over(fleet: LocalFleet, name: str) -> bool:
    job = fleet.job(name)
    return job is not None and job.state in OVER


def assert_nothing_lost(fleet: LocalFleet, name: str, steps: int) -> None:
    """Each commit that counts lies on the one line that leads to the last step."""
    lineage = Register(open_store(str(fleet.folder / "vaults" / name))).read()
    line, commit = [], lineage.head
    while commit is not None:
        line.append(commit.seq)
        commit = lineage.commit(commit.parent) if commit.parent is not None else None
    assert lineage.head is not None
    assert lineage.head.step == steps
    assert sorted(line) == sorted(one.seq for one in lineage.commits), name
    print(f"{name}: {len(lineage.generations)} generations, {len(line)} commits", flush=True)


def test_a_hanging_cluster_makes_no_other_one_older(fleet: LocalFleet, lan: Rack) -> None:
    fleet.until("all were looked at", lambda: all(ages(fleet, "oak") or [None]), 120)
    before = oldest(fleet, HANG)
    for host in lan.names[:3]:
        lan.do("hang", host)
    try:
        meanwhile = oldest(fleet, HANG)
    finally:
        for host in lan.names[:3]:
            lan.do("thaw", host)
    print(
        f"p99 age of the others' newest observation: {before:.2f} s, {meanwhile:.2f} s", flush=True
    )
    assert meanwhile < 2 * before + 1.0  # the figure is what counts: the machine is shared


def oldest(fleet: LocalFleet, seconds: float) -> float:
    """Return the 99th percentile of the ages of what is known of the other clusters' nodes."""
    found: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found += [age for age in ages(fleet, "oak") if age is not None]
        time.sleep(0.25)
    return statistics.quantiles(found, n=100)[98]


def ages(fleet: LocalFleet, without: str) -> list[float | None]:
    """Return how old the newest word of each node is, in seconds; None if there was none."""
    seen = fleet.ledger.snapshot(datetime.now(UTC), ())
    found: list[float | None] = []
    for name, node in seen.nodes.items():
        if node.cluster != without:
            at = seen.beliefs.nodes[name].reached_at
            found.append((datetime.now(UTC) - at).total_seconds() if at is not None else None)
    return found
