"""After kills of every kind nothing of a gang is left: short here, a hundred in `make soak`.

Whatever names the gang's own folder in its environment, command line, working folder or open files
is the gang's, with our marker or without. Temporary files would lie in folders that only it uses.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import HoldfastError
from orchestrator.runtime import place as places
from orchestrator.runtime import processes
from orchestrator.runtime.place import Place
from tests.runtime.schedules import Schedule
from tests.runtime.steadygangs import SteadyGang, steady_gang
from tests.runtime.trees import marked, wait_for

NODES = "abc"
KINDS = 6  #: rank, stop, all ranks, warm parent, agent, node
SEGMENTS_MAX = 2  #: on a node: its own snapshots, and copies for a partner
FILES_MAX = 40  #: open files of one process of ours, however long it has lived


def of_gang(root: Path) -> list[int]:
    """Return the living processes that have anything to do with a folder, but not this one."""
    return [
        one.pid
        for one in processes.every()
        if one.pid != os.getpid() and any(str(root) in text for text in traces(one.pid))
    ]


def traces(pid: int) -> Iterator[str]:
    """Yield whatever says to whom a process belongs."""
    folder = Path(f"/proc/{pid}")
    with suppress(OSError):
        yield (folder / "environ").read_bytes().decode(errors="replace")
        yield (folder / "cmdline").read_bytes().decode(errors="replace")
        yield str((folder / "cwd").readlink())
        yield from files(pid)


def files(pid: int) -> list[str]:
    """Return what a process has open."""
    found = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(str(link.readlink()))
    return found


def segments(node: Path) -> set[int]:
    """Return the inodes of the segments of snapshots that a node's processes hold."""
    found = set()
    for process in marked(Place(node, "j.1")):
        with suppress(OSError):
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    if "memfd:holdfast" in str(link.readlink()):
                        found.add(link.stat().st_ino)
    return found


def left_on_disk(root: Path) -> list[Path]:
    """Return sockets, and temporary files of nodes, ranks and whoever uses TMPDIR."""
    made = list((root / "tmp").rglob("*"))
    sockets = [path for path in root.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    hidden = [
        path
        for path in (root / "nodes").rglob(".*")
        if re.fullmatch(r"\..+\.([0-9a-f]{12}|new)|\.tmp-.*", path.name)
    ]
    return [*made, *sockets, *hidden]


def few(node: Path) -> bool:
    return len(segments(node)) <= SEGMENTS_MAX


def kinds(schedule: Schedule) -> list[Callable[[], None]]:
    return [
        schedule.kill_rank,
        schedule.stop_rank,
        schedule.kill_all_ranks,
        schedule.kill_warm_parent,
        schedule.kill_agent,
        schedule.kill_node,
    ]


def run_kills(root: Path, monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    """Let every kind of kill happen `rounds` times, stop the gang, and look for what is left."""
    (root / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(root / "tmp"))  # launcher, guards and agents inherit it
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root / "cache"))  # torch's, for all its users
    wishes = {"save_every": 25, "snapshot_budget": 1.0}
    env = {"WEIGH_EVERY": "5", "TMPDIR": str(root / "tmp")}
    with steady_gang(
        root, "ab", standbys="c", per_node=2, steps=100_000, wishes=wishes, more_env=env
    ) as steady:
        steady.wait_step(5)
        done = 0
        for seed in range(rounds):
            schedule = Schedule(steady, seed)
            for kill in kinds(schedule):
                kill()
                schedule.heal()
                schedule.wait_progress()
            done += len(schedule.done)
        assert done >= rounds * KINDS - rounds, "kills that met nobody"
        for node in NODES:
            wait_for(partial(few, steady.gang.home(node)))
            for process in marked(Place(steady.gang.home(node), "j.1")):
                held = files(process.pid)
                assert len(held) <= FILES_MAX, Counter(text.partition(":")[0] for text in held)
                assert not [text for text in held if text.startswith("/dev/shm/")]
        assert any(segments(steady.gang.home(node)) for node in NODES)
        assert len(of_gang(root)) >= len(NODES)  # or nothing could be missed below
        stop(steady)
        wait_for(lambda: not of_gang(root), limit=30)
    assert left_on_disk(root) == []


def stop(steady: SteadyGang) -> None:
    """Let every agent end its ranks and itself, as a controller would."""
    for node in NODES:
        with suppress(HoldfastError):
            steady.gang.ask(node, {"ask": "stop", "reason": "enough"})
        gone = Place(steady.gang.home(node), "j.1").gone
        wait_for(gone.exists, limit=30)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".agent.json.0123456789ab").touch()
    for kept in ("agent.json", ".holdfast-store", ".agent.json.0123456789abc", ".x.ghijklmnopqr"):
        (tmp_path / kept).touch()
    places.clear_leftovers(tmp_path)
    places.clear_leftovers(tmp_path / "nowhere")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".agent.json.0123456789abc", ".holdfast-store", ".x.ghijklmnopqr", "agent.json"]


@pytest.mark.system
@pytest.mark.torch
@pytest.mark.timeout(300)
def test_one_kill_of_every_kind_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    run_kills(tmp_path, monkeypatch, rounds=1)


@pytest.mark.soak
@pytest.mark.system
@pytest.mark.torch
@pytest.mark.timeout(3600)
def test_a_hundred_kills_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    run_kills(tmp_path, monkeypatch, rounds=17)  # of six kinds
