"""Records of collectives: in a file that the agent reads, also of a rank that is stuck for good."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.runtime.collectives import SLOTS, Recorder, last_records

GANG = """
import datetime, os, sys, time
import torch, torch.distributed as dist
from pathlib import Path
from orchestrator.runtime.collectives import Recorder, watch
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
recorder = Recorder(folder / f"r{rank}")
store = dist.FileStore(str(folder / "store"), 2)
limit = datetime.timedelta(seconds=60)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
assert watch(recorder) and watch(recorder)
dist.all_reduce(torch.ones(8))
said = [None, None]
dist.all_gather_object(said, rank)  # made of other collectives: one record
mine = dist.new_group([0, 1])
work = dist.all_reduce(torch.ones(3), group=mine, async_op=True)
work.wait()
if rank == 1:
    time.sleep(0.5)
waited = recorder.take_waited()
assert waited is None, "what goes on behind a call hides how long it was waited for"
dist.broadcast(torch.ones(5), 0)
dist.barrier()
waited = recorder.take_waited()
print("waited", waited)
if rank == 1:
    os._exit(0)  # never comes to the next one
try:
    dist.reduce(torch.ones(2), 0)
except RuntimeError:
    pass
print(recorder.take_waited() is not None)
"""


@pytest.mark.torch
def test_two_real_ranks_leave_the_same_records(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", GANG, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [one.communicate(timeout=120) for one in ranks]
    assert [one.returncode for one in ranks] == [0, 0], said
    first, second = (last_records(tmp_path / f"r{rank}") for rank in (0, 1))
    world = {rank: one[0] for rank, one in ((0, first), (1, second))}
    assert (world[1]["group"], world[1]["sequence"], world[1]["operation"]) == (
        "world",
        4,
        "barrier",
    )
    assert (world[0]["sequence"], world[0]["operation"], world[0]["size"]) == (5, "reduce", 2)
    assert all(one["done"] is not None for one in (*first, *second)), "raising is over as well"
    assert [one["size"] for one in first if one["group"] != "world"] == [3]
    waits = [float(out.split()[1]) for out, _ in said]
    assert waits[0] > 0.3 > waits[1], "the fast rank waits, the slow one does not"


def test_the_last_record_of_each_group_is_told_and_what_is_under_way_is_not_done(
    tmp_path: Path,
) -> None:
    seconds = iter(float(number) for number in range(1, 1000))
    recorder = Recorder(tmp_path / "r0", clock=lambda: next(seconds), stopwatch=lambda: 0.0)
    for _ in range(SLOTS):
        recorder.leave(recorder.enter("world", "all_reduce", 8))
    recorder.leave(recorder.enter("tp", "broadcast", 4))
    recorder.enter("world", "barrier", 0)
    world, tp = last_records(tmp_path / "r0")
    assert (world["sequence"], world["operation"], world["done"]) == (SLOTS + 1, "barrier", None)
    assert (tp["group"], tp["sequence"], tp["size"]) == ("tp", 1, 4)
    assert tp["done"] > tp["entered"]


def test_a_new_generation_counts_from_one(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a")
    recorder.enter("world", "barrier", 0)
    recorder.open(tmp_path / "b")
    recorder.enter("world", "barrier", 0)
    assert [one["sequence"] for one in last_records(tmp_path / "b")] == [1]


def test_no_file_and_no_folder_are_no_records(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "none" / "r0")
    recorder.leave(recorder.enter("world", "barrier", 0))
    assert recorder.take_waited() is not None
    assert last_records(tmp_path / "none" / "r0") == []


@pytest.mark.parametrize("seed", range(50))
def test_garbage_is_no_record(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    path = tmp_path / "r0"
    path.write_bytes(dice.randbytes(dice.randint(0, 20_000)))
    assert last_records(path) == []
    recorder = Recorder(path)
    recorder.enter("world", "barrier", 0)
    data = bytearray(path.read_bytes())
    data[dice.randrange(112)] ^= dice.randint(1, 255)
    path.write_bytes(data)
    for one in last_records(path):
        assert one["operation"] == "barrier"
        assert 0 < one["sequence"] < 2**53
