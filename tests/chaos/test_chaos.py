"""Each fault hits exactly what it says: real processes, on a cluster of one folder."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.chaos import Chaos, Fault, Rank, flip_a_byte
from orchestrator.daemon.holder import holder
from orchestrator.errors import TransientError, UserError
from orchestrator.runtime import processes
from orchestrator.runtime.lineage import Because, Cause, Commit, Fence, Generation, Member
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from providers.local import LocalMachines, LocalProvider, is_running

GANG = """
import os, subprocess, sys, time
for rank in sys.argv[1:]:
    subprocess.Popen(["sleep", "60"], env={**os.environ, "RANK": rank})
subprocess.Popen(["sleep", "60"])
time.sleep(60)
"""


def until(true: Callable[[], object], limit: float = 20) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class Ground:
    """A state folder with one or more local clusters and jobs that pretend."""

    def __init__(self, state: Path) -> None:
        self.state, self.agents = state, list[subprocess.Popen[bytes]]()
        self.chaos = Chaos(state, random.Random(7))

    def cluster(self, name: str, *nodes: str) -> LocalProvider:
        provider = LocalProvider(self.state / "clusters" / name, LocalMachines(nodes))
        provider.machines()
        return provider

    def home(self, node: str) -> Path:
        (home,) = self.state.glob(f"clusters/*/{node}")
        return home

    def agent(self, node: str, run: str, *ranks: int, **env: str) -> None:
        home = self.home(node)
        marker = {"HOLDFAST_HOME": os.path.realpath(home), "HOLDFAST_RUN": run}
        agent = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", GANG, *map(str, ranks)],
            env={**os.environ, **marker, **env},
        )
        self.agents.append(agent)
        folder = home / "attempts" / run
        folder.mkdir(parents=True)
        (folder / "agent.json").write_text(json.dumps({"pid": agent.pid}))
        job = run.rpartition(".")[0]
        until(lambda: len([one for one in self.chaos.ranks(job) if one.node == node]) == len(ranks))

    def ranks(self) -> list[int]:
        return [one.rank for one in self.chaos.ranks("train")]

    def close(self) -> None:
        for home in self.state.glob("clusters/*/*/"):
            processes.kill_home(home)
        for agent in self.agents:
            agent.wait()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    yield made
    made.close()


def state_of(pid: int) -> str:
    process = processes.read(pid)
    return "" if process is None else process.state


def test_ranks_are_the_agents_children_that_have_a_rank(ground: Ground) -> None:
    ground.cluster("ash", "ash-1", "ash-2")
    ground.agent("ash-2", "train.1", 1)
    ground.agent("ash-1", "train.1", 0)
    ground.agent("ash-1", "train.b.1", 5)
    assert [(one.node, one.rank, one.run) for one in ground.chaos.ranks("train")] == [
        ("ash-1", 0, "train.1"),
        ("ash-2", 1, "train.1"),
    ]
    assert [one.rank for one in ground.chaos.ranks("train.b")] == [5]
    assert ground.chaos.ranks("other") == []


def test_a_killed_rank_is_gone_and_no_other(ground: Ground) -> None:
    ground.cluster("ash", "ash-1")
    ground.agent("ash-1", "train.1", 0, 1)
    done = ground.chaos.inject(Fault.KILL_RANK, "train", "1")
    assert done.target == "ash-1/rank1"
    until(lambda: ground.ranks() == [0])
    assert done.pid is not None
    assert state_of(done.pid) in ("", "Z")


def test_a_hung_rank_is_stopped_and_still_there(ground: Ground) -> None:
    ground.cluster("ash", "ash-1")
    ground.agent("ash-1", "train.1", 0, 1)
    done = ground.chaos.inject(Fault.HANG_RANK, "train", "0")
    assert done.pid is not None
    until(lambda: state_of(done.pid or 0) == "T")
    assert ground.ranks() == [0, 1]


def test_a_killed_node_keeps_nothing_and_its_neighbour_everything(ground: Ground) -> None:
    ground.cluster("ash", "ash-1", "ash-2")
    ground.agent("ash-1", "train.1", 0)
    ground.agent("ash-2", "train.1", 1)
    done = ground.chaos.inject(Fault.KILL_NODE, "train", "ash-1")
    assert (done.target, done.pid) == ("ash-1", ground.agents[0].pid)
    assert not is_running(ground.home("ash-1"))
    marker = {"HOLDFAST_HOME": os.path.realpath(ground.home("ash-1"))}
    assert processes.find(processes.Target(marker)) == ()
    assert ground.ranks() == [1]
    assert is_running(ground.home("ash-2"))


def test_a_gpu_fault_is_a_line_that_the_kernel_would_write(ground: Ground) -> None:
    ground.cluster("ash", "ash-1")
    ground.agent("ash-1", "train.1", 0)
    done = ground.chaos.inject(Fault.GPU_FAULT, "train")
    assert (done.target, done.pid) == ("ash-1", None)
    log = (ground.home("ash-1") / "kernel.log").read_text()
    assert "NVRM: Xid (PCI:0000:3b:00): 79," in log
    assert log.endswith("\n")
    assert ground.ranks() == [0], "nobody is told"


def test_a_lost_cluster_is_dark_and_cannot_be_rebooted(ground: Ground) -> None:
    ash, birch = ground.cluster("ash", "ash-1", "ash-2"), ground.cluster("birch", "birch-1")
    ground.agent("ash-1", "train.1", 0)
    done = ground.chaos.inject(Fault.LOSE_CLUSTER, "train")
    assert done.target == ["ash-1", "ash-2"]
    for node in ("ash-1", "ash-2"):
        assert not is_running(ground.home(node))
        with pytest.raises(TransientError):
            ash.reboot(node)
    assert birch.reboot("birch-1")


@pytest.mark.parametrize("target", ["..", "elm", "ash/ash-1", "."])
def test_only_a_cluster_of_ours_can_be_lost(ground: Ground, target: str) -> None:
    ground.cluster("ash", "ash-1")
    with pytest.raises(UserError, match="no local cluster"):
        ground.chaos.inject(Fault.LOSE_CLUSTER, "train", target)
    assert not list(ground.state.rglob("lost"))
    assert is_running(ground.home("ash-1"))


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.KILL_CONTROLLER])
def test_where_nothing_runs_nothing_can_be_broken(ground: Ground, fault: Fault) -> None:
    with pytest.raises(UserError, match="no running rank"):
        ground.chaos.inject(fault, "train")


def test_a_rank_that_is_not_there_is_named(ground: Ground) -> None:
    ground.cluster("ash", "ash-1")
    ground.agent("ash-1", "train.1", 0)
    with pytest.raises(UserError, match="rank or node 9"):
        ground.chaos.inject(Fault.KILL_RANK, "train", "9")


def test_the_dice_choose_the_same_again(ground: Ground) -> None:
    ground.cluster("ash", "ash-1")
    ground.agent("ash-1", "train.1", 0, 1, 2)

    def chosen() -> list[int | None]:
        chaos = Chaos(ground.state, random.Random(3))
        return [chaos.inject(Fault.HANG_RANK, "train").pid for _ in range(4)]

    assert chosen() == chosen()


# --- the controller -----------------------------------------------------------------------------


def test_the_controller_is_killed_by_its_number_and_its_start(ground: Ground) -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = processes.read(child.pid)
    assert process is not None
    host, boot, *_ = holder().split("/")
    body = {"pid": child.pid, "holder": f"{host}/{boot}/{child.pid}/{process.started}"}
    (ground.state / "daemon.json").write_text(json.dumps(body))
    assert ground.chaos.inject(Fault.KILL_CONTROLLER, "train").pid == child.pid
    assert child.wait() == -9
    with pytest.raises(UserError, match="does not run"):
        ground.chaos.inject(Fault.KILL_CONTROLLER, "train")


def test_a_stranger_with_the_controllers_number_lives(ground: Ground) -> None:
    child = subprocess.Popen(["sleep", "60"])
    body = {"pid": child.pid, "holder": f"host/boot/{child.pid}/1"}
    (ground.state / "daemon.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match="does not run"):
        ground.chaos.inject(Fault.KILL_CONTROLLER, "train")
    assert child.poll() is None
    child.kill()
    child.wait()


def test_a_controller_that_never_ran_cannot_be_killed(ground: Ground) -> None:
    with pytest.raises(UserError, match="no daemon"):
        ground.chaos.inject(Fault.KILL_CONTROLLER, "train")


# --- checkpoints --------------------------------------------------------------------------------


def a_vault(folder: Path) -> Commit:
    """Write a vault with one commit of two parts; returns the commit."""
    (folder / "manifests").mkdir(parents=True)
    (folder / "parts").mkdir()
    parts = []
    for name, data in (("a", bytes(100)), ("b", b"x")):
        (folder / "parts" / name).write_bytes(data)
        (folder / "parts" / name).chmod(0o444)
        parts.append({"key": f"parts/{name}", "bytes": len(data)})
    (folder / "manifests" / "m.json").write_text(json.dumps({"parts": parts}))
    return Commit(3, "n", 2, 5, None, "manifests/m.json", "d", 0.0, "")


@pytest.mark.parametrize("seed", range(20))
def test_one_bit_of_one_part_is_flipped(tmp_path: Path, seed: int) -> None:
    commit = a_vault(tmp_path / "a vault")
    parts = {path: path.read_bytes() for path in (tmp_path / "a vault" / "parts").iterdir()}
    url = f"file://{tmp_path}/a%20vault"
    hit = flip_a_byte(url, commit, random.Random(seed))
    flipped = 0
    for path, before in parts.items():
        after = path.read_bytes()
        assert len(after) == len(before)
        changed = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
        assert changed == 0 or hit == f"parts/{path.name}"
        flipped += changed.bit_count()
    assert flipped == 1


def test_a_corrupted_checkpoint_is_the_newest_and_a_rank_dies_with_it(ground: Ground) -> None:
    vault = ground.state / "vault"
    commit = a_vault(vault)
    register = Register(open_store(str(vault)))
    ground.cluster("ash", "ash-1")
    ground.agent("ash-1", "train.1", 0, HOLDFAST_CHECKPOINTS=str(vault))
    with pytest.raises(UserError, match="committed nothing"):
        ground.chaos.inject(Fault.CORRUPT_CHECKPOINT, "train")
    assert ground.ranks() == [0]
    register.append(lambda seq: Fence(seq, "f", 1, 1, 0.0, "x"), register.read())
    register.append(lambda seq: a_generation(seq), register.read())
    register.append(lambda seq: commit, register.read())
    assert register.read().head == commit
    done = ground.chaos.inject(Fault.CORRUPT_CHECKPOINT, "train")
    assert done.target in ("parts/a", "parts/b")
    until(lambda: ground.ranks() == [])


def a_generation(seq: int) -> Generation:
    member = Member("ash-1", "127.0.0.1", 1)
    because = Because(Cause.START)
    return Generation(
        seq, "g", 1, None, 1, 1, (member,), "127.0.0.1:2", None, "first", because, 0.0, "ash-1"
    )


def test_a_rank_is_known_by_where_it_runs(ground: Ground) -> None:
    ground.cluster("ash", "ash-1")
    ground.agent("ash-1", "train.1", 0)
    (rank,) = ground.chaos.ranks("train")
    assert isinstance(rank, Rank)
    assert rank.home.name == rank.node == "ash-1"
