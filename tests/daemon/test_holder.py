from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from orchestrator.daemon.holder import holder, is_dead
from orchestrator.runtime import processes


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(["sleep", "60"])
    yield made
    made.kill()
    made.wait()


def name_of(pid: int) -> str:
    host, boot, *_ = holder().split("/")
    process = processes.read(pid)
    assert process is not None
    return f"{host}/{boot}/{pid}/{process.started}"


def test_a_process_knows_that_it_lives() -> None:
    assert not is_dead(holder())


def test_a_living_holder_is_not_dead_even_if_it_is_stopped(child: subprocess.Popen[bytes]) -> None:
    name = name_of(child.pid)
    assert not is_dead(name)
    child.send_signal(signal.SIGSTOP)
    assert not is_dead(name)


def test_a_killed_holder_is_dead_before_its_parent_has_noticed(
    child: subprocess.Popen[bytes],
) -> None:
    name = name_of(child.pid)
    child.kill()
    while (process := processes.read(child.pid)) is not None and not process.dead:
        pass
    assert is_dead(name), "a zombie is dead"
    child.wait()
    assert is_dead(name)


def test_a_process_number_with_another_start_is_another_life() -> None:
    host, boot, pid, started = holder().split("/")
    assert is_dead(f"{host}/{boot}/{pid}/{int(started) - 1}")


def test_an_earlier_boot_of_this_computer_is_dead() -> None:
    host, _, pid, started = holder().split("/")
    assert is_dead(f"{host}/another-boot/{pid}/{started}")


def test_nobody_calls_a_holder_on_another_computer_dead() -> None:
    _, boot, pid, started = holder().split("/")
    assert not is_dead(f"elsewhere/{boot}/{pid}/{started}")
    assert not is_dead("")
