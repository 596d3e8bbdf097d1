from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import TransientError
from orchestrator.runtime import cgroup, processes
from orchestrator.runtime.place import Place
from orchestrator.runtime.processes import Process, Sweep, Target
from tests.runtime.trees import cleared, grow, marked, wait_for


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with cleared(tmp_path):
        yield Place(tmp_path, "job.1")


def test_a_tree_of_setsid_nohup_and_double_forks_is_found_and_proven_gone(place: Place) -> None:
    root = grow(place)
    wait_for(lambda: len(marked(place)) >= 6)

    assert processes.sweep(Target(place.marker), limit=5) >= 6

    assert marked(place) == ()
    assert root.wait() == -signal.SIGKILL


def test_a_sweep_takes_only_those_with_both_halves_of_the_marker(place: Place) -> None:
    other = Place(place.home, "job.2")
    root = grow(other, "exec sleep 300")
    wait_for(lambda: marked(other))

    assert processes.sweep(Target(place.marker), limit=5) == 0
    assert [found.pid for found in marked(other)] == [root.pid]

    processes.sweep(Target(other.marker), limit=5)
    root.wait()


def test_the_loss_of_a_home_takes_every_attempt_on_it(place: Place) -> None:
    roots = [grow(Place(place.home, f"job.{n}"), "exec sleep 300") for n in (1, 2)]
    wait_for(lambda: all(processes.alive(root.pid, {}) for root in roots))
    wait_for(lambda: len(processes.find(Target({"HOLDFAST_HOME": str(place.home)}))) == 2)

    assert processes.kill_home(place.home) == 2
    assert [root.wait() for root in roots] == [-9, -9]


def test_a_child_that_lost_its_marker_is_still_found_below_its_parent(place: Place) -> None:
    root = grow(place, "env -i sleep 300 & wait")
    wait_for(lambda: len(marked(place)) == 2)

    processes.sweep(Target(place.marker), limit=5)

    assert marked(place) == ()
    root.wait()


def test_a_zombie_counts_as_gone(place: Place) -> None:
    root = grow(place, "exit 0")
    wait_for(lambda: (seen := processes.read(root.pid)) is not None and seen.state == "Z")

    assert marked(place) == ()
    assert not processes.alive(root.pid, place.marker)
    root.wait()
    assert processes.read(root.pid) is None


def test_the_sweeper_and_those_it_spares_are_never_touched(place: Place) -> None:
    root = grow(place, "exec sleep 300")
    wait_for(lambda: marked(place))

    spared = Target(place.marker, spare=frozenset({root.pid}))
    assert processes.sweep(spared, limit=5) == 0
    assert processes.alive(root.pid, place.marker)

    processes.sweep(Target(place.marker), limit=5)
    root.wait()


def test_one_quiet_look_proves_nothing(place: Place) -> None:
    sweep = Sweep(Target(place.marker))
    sweep.look()
    assert not sweep.done
    sweep.look()
    assert sweep.done


def test_another_life_of_a_pid_is_not_signalled(place: Place) -> None:
    root = grow(place, "exec sleep 300")
    wait_for(lambda: marked(place))
    seen = marked(place)[0]
    earlier = Process(seen.pid, seen.parent, seen.state, seen.started - 1)

    assert not processes.send(earlier, signal.SIGKILL)
    assert processes.alive(root.pid, place.marker)
    assert processes.send(seen, signal.SIGKILL)
    root.wait()
    assert not processes.send(seen, signal.SIGKILL)


def test_a_sweep_that_runs_out_of_time_gives_no_proof(place: Place) -> None:
    root = grow(place, "exec sleep 300")
    wait_for(lambda: marked(place))
    with pytest.raises(TransientError, match="still there after 0"):
        processes.sweep(Target(place.marker), limit=0)
    root.wait()


def test_a_stopped_process_is_in_state_t_and_no_frozen_group(place: Place) -> None:
    root = grow(place, "exec sleep 300")
    os.kill(root.pid, signal.SIGSTOP)
    wait_for(lambda: (seen := processes.read(root.pid)) is not None and seen.state == "T")
    assert not cgroup.frozen(root.pid)
    root.kill()
    root.wait()


def test_a_frozen_group_is_noticed(place: Place) -> None:
    mount = cgroup.mounts().get("cgroup2")
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("no writable cgroup v2 hierarchy here")
    folder = mount / f"holdfast-test-{os.getpid()}"
    folder.mkdir()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        (folder / "cgroup.procs").write_text(str(child.pid))
        assert not cgroup.frozen(child.pid)
        (folder / "cgroup.freeze").write_text("1")
        wait_for(lambda: cgroup.frozen(child.pid))
    finally:
        child.kill()
        child.wait()
        wait_for(lambda: "populated 0" in (folder / "cgroup.events").read_text())
        folder.rmdir()


def test_a_name_full_of_brackets_does_not_confuse_the_reader(place: Place, tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(odd), "300"])
    seen = processes.read(child.pid)
    assert seen is not None
    assert seen.parent == os.getpid()
    child.kill()
    child.wait()


def test_a_pid_that_never_was_is_nobody() -> None:
    assert processes.read(2**22 + 1) is None
    assert processes.environment(2**22 + 1) is None
    assert not cgroup.frozen(2**22 + 1)
