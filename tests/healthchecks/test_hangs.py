"""Who holds up a gang that hangs, from records, from stacks, and from four real ranks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from healthchecks.hangs import (
    Entered,
    How,
    frames,
    groups,
    judge,
    judge_records,
    last_entered,
)
from orchestrator.runtime import stacks

WAITS = """Process 41: python train.py
Python v3.11.2 (/usr/bin/python3.11)

Thread 41 (idle): "MainThread"
    all_reduce (torch/distributed/distributed_c10d.py:2806)
    train (train.py:44)
    <module> (train.py:60)
Thread 50 (idle): "Thread-1 (pin)"
    wait (threading.py:320)
"""
AWAY = WAITS.replace("    all_reduce (torch/distributed/distributed_c10d.py:2806)\n", "").replace(
    "    train (train.py:44)", "    tokenize (data.py:9)\n    train (train.py:40)"
)
AT = Entered(7, "ALLREDUCE", 1024, done=False)


def test_who_never_entered_is_the_culprit() -> None:
    entered = {0: AT, 1: AT, 2: AT._replace(sequence=6, done=True), 3: AT}
    found = judge(entered, {2: AWAY})
    assert (found.how, found.ranks) == (How.BEHIND, (2,))
    assert found.stacks == {2: AWAY}
    assert "rank 2 stopped at 6" in found.reason


def test_who_entered_another_collective_is_named() -> None:
    odd = AT._replace(operation="BROADCAST")
    assert judge({0: AT, 1: AT, 2: odd}, {}).how is How.DESYNC
    assert judge({0: AT, 1: AT, 2: odd}, {}).ranks == (2,)
    size = AT._replace(size=1)
    assert judge({0: AT, 1: size, 2: AT}, {}).ranks == (1,)


def test_if_all_entered_it_is_the_links() -> None:
    found = judge({0: AT, 1: AT, 2: AT}, {0: WAITS, 1: WAITS, 2: WAITS})
    assert (found.how, found.ranks) == (How.LINKS, ())


def test_half_behind_half_ahead_accuses_nobody() -> None:
    behind = AT._replace(sequence=6)
    assert judge({0: AT, 1: AT, 2: behind, 3: behind}, {}).ranks == ()


def record(group: str, sequence: int, done: float | None) -> dict[str, object]:
    facts = {"group": group, "sequence": sequence, "operation": "all_reduce", "size": 8}
    return {**facts, "entered": 1.0, "done": done}


def test_who_waits_in_another_group_is_a_victim_there() -> None:
    """Ranks 0 and 1 are one pair, 2 and 3 the other; 3 is stuck, so 1 and then 0 wait as well."""
    records = {
        0: [record("world", 9, 2.0), record("pair0", 5, None)],
        1: [record("world", 10, None), record("pair0", 4, 2.0)],
        2: [record("world", 10, None), record("pair1", 4, 2.0)],
        3: [record("world", 9, 2.0), record("pair1", 4, 2.0)],
    }
    assert judge_records(records, {}).ranks == ()  # half of the world is behind
    records[0] = [record("world", 10, None), record("pair0", 4, 2.0)]
    found = judge_records(records, {3: AWAY})
    assert (found.how, found.ranks, found.stacks) == (How.BEHIND, (3,), {3: AWAY})
    records[0] = [record("world", 9, 2.0), record("pair0", 5, None)]
    records |= {rank: [record("world", 10, None)] for rank in (4, 5, 6)}
    assert judge_records(records, {}).ranks == (3,), "0 waits in its pair"


def test_records_decide_before_stacks_and_stacks_where_records_say_nothing() -> None:
    records = {rank: [record("world", 7, None)] for rank in range(4)}
    stacks = dict.fromkeys(range(4), WAITS)
    assert judge_records(records, stacks).how is How.LINKS
    assert judge_records({}, {**stacks, 1: AWAY}).ranks == (1,)
    records[2] = [record("world", 6, 2.0)]
    assert judge_records(records, {**stacks, 1: AWAY}).ranks == (2,)


def test_stacks_tell_where_there_are_no_records() -> None:
    found = judge({}, {0: WAITS, 1: AWAY, 2: WAITS, 3: WAITS})
    assert (found.how, found.ranks) == (How.ELSEWHERE, (1,))
    assert "tokenize" in found.reason
    assert judge({}, {0: AWAY, 1: AWAY}).how is How.UNCLEAR
    assert judge({}, {}).how is How.UNCLEAR


def test_frames_are_those_of_the_main_thread_without_lines() -> None:
    assert frames(WAITS) == ("all_reduce", "train", "<module>")
    assert frames("py-spy is not installed\nName:\tpython") == ()


def test_equal_stacks_are_one_group() -> None:
    (first, second) = groups({0: WAITS, 1: AWAY, 2: WAITS.replace(":44", ":45")})
    assert first[1] == (0, 2)
    assert second[1] == (1,)


def test_records_are_read_to_the_last_that_was_entered() -> None:
    records = [
        {"sequence": 5, "operation": "ALLREDUCE", "size": 8, "entered": 1.0, "done": 1.1},
        {"sequence": 6, "operation": "ALLREDUCE", "size": 8, "entered": 1.2, "done": None},
        {"sequence": 7, "operation": "ALLREDUCE", "size": 8, "entered": None, "done": None},
    ]
    assert last_entered(records) == Entered(6, "ALLREDUCE", 8, done=False)
    assert last_entered([]) is None


RANK = """
import socket, sys, time
rank, port = int(sys.argv[1]), int(sys.argv[2])

def stuck_in_my_code():
    print("ready", flush=True)
    while True:
        time.sleep(0.05)

def all_reduce(link):
    link.sendall(b"x")
    print("ready", flush=True)
    link.recv(1)  # the others' word: it never comes

link = socket.create_connection(("127.0.0.1", port))
if rank == 2:
    stuck_in_my_code()
all_reduce(link)
"""


def test_four_real_ranks_one_stuck_in_its_own_code(tmp_path: Path) -> None:
    """Real processes and py-spy; nothing is killed before the culprit is named."""
    import socket

    if stacks.find_py_spy() is None:
        pytest.skip("py-spy is not installed")
    hub = socket.create_server(("127.0.0.1", 0))
    port = str(hub.getsockname()[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(one), port], stdout=subprocess.PIPE, text=True
        )
        for one in range(4)
    ]
    try:
        for one in ranks:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        began = time.monotonic()
        dumps = [
            stacks.Dump(one.pid, tmp_path / f"{rank}.txt", time.monotonic())
            for rank, one in enumerate(ranks)
        ]
        while not all(one.done(time.monotonic()) for one in dumps):
            time.sleep(0.02)
        texts = {rank: one.text() for rank, one in enumerate(dumps)}
        if not all(map(frames, texts.values())):
            pytest.skip(f"py-spy may not look here: {texts[0][:200]}")
        found = judge({}, texts)
        took = time.monotonic() - began
        assert all(one.poll() is None for one in ranks)  # nothing was killed
        assert (found.how, found.ranks) == (How.ELSEWHERE, (2,)), texts
        assert "stuck_in_my_code" in found.stacks[2]
        assert took < 10 + stacks.LIMIT
    finally:
        for one in ranks:
            one.kill()
            one.wait()
            if one.stdout is not None:
                one.stdout.close()
        hub.close()
