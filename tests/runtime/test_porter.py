"""A porter that somebody holds: what it starts ends with it, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TransientError
from orchestrator.runtime import porter, processes

pytestmark = pytest.mark.system

#: Stands for a guard: notes that it was told to end, as a guard writes its proof.
CHILD = """
import os, pathlib, signal, sys, time
def told(*_):
    pathlib.Path(sys.argv[1], "told").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
    sys.exit()
signal.signal(signal.SIGTERM, told)
pathlib.Path(sys.argv[1], "up").touch()
while True:
    time.sleep(60)
"""
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[subprocess.Popen[bytes]] = []

    def go(*words: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "orchestrator.runtime.porter", "--home", str(tmp_path)]
        process = subprocess.Popen([*argv, *words], stdin=subprocess.PIPE)
        made.append(process)
        until(lambda: knocks(tmp_path))
        return process

    yield go
    for process in made:
        process.kill()
        process.communicate()


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("not within 30 s")


def knocks(home: Path) -> dict[str, Any] | None:
    try:
        return porter.talk(porter.door(home), {"ask": "knock"})
    except TransientError:
        return None


def child(home: Path) -> int:
    argv = [sys.executable, "-S", "-c", CHILD, str(home)]
    pid = porter.ask(porter.door(home), argv, {"PATH": os.environ["PATH"]}, home, home / "log")
    until((home / "up").exists)
    return pid


def gone(pid: int) -> bool:
    process = processes.read(pid)
    return process is None or process.dead


def test_what_a_held_porter_started_ends_with_whoever_held_it(start: Start, tmp_path: Path) -> None:
    held = start("--held", "--give", "CUDA_VISIBLE_DEVICES=2,3")
    pid = child(tmp_path)
    assert held.stdin is not None
    held.stdin.close()
    assert held.wait(30) == 0
    assert gone(pid)
    assert (tmp_path / "told").read_text() == "2,3", "and sees what the scheduler gave"
    assert not porter.door(tmp_path).exists()


def test_a_held_porter_that_is_killed_takes_what_it_started_along(
    start: Start, tmp_path: Path
) -> None:
    held = start("--held")
    pid = child(tmp_path)
    held.kill()
    until(lambda: gone(pid))
    assert (tmp_path / "told").read_text() == "none"


def test_a_porter_that_nobody_holds_lets_guards_outlive_it(start: Start, tmp_path: Path) -> None:
    process = start()
    pid = child(tmp_path)
    process.kill()
    process.wait()
    assert not gone(pid), "the allocation ends it, not we"
    os.kill(pid, signal.SIGKILL)


def test_a_held_porter_leaves_when_it_is_asked_and_nobody_lives_there(
    start: Start, tmp_path: Path
) -> None:
    held = start("--held")
    pid = child(tmp_path)
    assert "agents run here" in porter.talk(porter.door(tmp_path), {"ask": "leave"})["error"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: "error" not in porter.talk(porter.door(tmp_path), {"ask": "leave"}))
    assert held.wait(30) == 0


def test_a_held_porter_without_anything_to_hold_ends_after_a_while(start: Start) -> None:
    assert start("--held", "--linger", "0.5").wait(30) == 0


def test_the_door_of_the_next_porter_is_not_closed_by_the_last(
    start: Start, tmp_path: Path
) -> None:
    first = start("--held")
    second = start("--held")
    until(lambda: (found := knocks(tmp_path)) and found["pid"] == second.pid)
    assert first.stdin is not None
    first.stdin.close()
    assert first.wait(30) == 0
    found = knocks(tmp_path)
    assert found is not None
    assert found["pid"] == second.pid


@pytest.mark.parametrize(
    "said",
    [b"", b"[]", b"7", b"null", b"[" * 100_000, b"{", b"{}", b'{"argv": [], "log": "/"}', b"\xff"],
)
def test_whatever_is_asked_a_porter_that_guards_hang_on_lives(
    start: Start, tmp_path: Path, said: bytes
) -> None:
    start("--held")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(porter.door(tmp_path)))
        connection.sendall(said + b"\n")
        assert "error" in json.loads(connection.makefile("rb").read())
    assert knocks(tmp_path)


def test_behind_a_door_that_a_killed_porter_left_nobody_answers(
    start: Start, tmp_path: Path
) -> None:
    process = start("--held")
    process.kill()
    process.wait()
    assert porter.door(tmp_path).exists()
    argv = [sys.executable, "-m", "orchestrator.runtime.porter", "--home", str(tmp_path)]
    for what in ("knock", "leave"):
        said = subprocess.run([*argv, "--ask", what], capture_output=True, check=False)
        assert said.returncode == TransientError.exit_code
        assert "no porter" in json.loads(said.stdout)["error"]
