from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.runtime import processes
from orchestrator.runtime.storeprocess import StoreProcess
from tests.runtime.trees import wait_for

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs torch: pip install 'holdfast[train]'"
)


@pytest.fixture(scope="module")
def stores() -> Iterator[StoreProcess]:
    stores = StoreProcess(None, "127.0.0.1")
    stores.start()
    yield stores
    stores.stop()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.torch
@needs_torch
def test_each_generation_has_a_store_of_its_own_and_the_old_one_is_closed(
    stores: StoreProcess,
) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    first = stores.fresh(60.0)
    assert first is not None
    client = TCPStore("127.0.0.1", first, None, False, timedelta(seconds=5))
    client.set("key", "value")
    assert client.get("key") == b"value"

    second = stores.fresh(60.0)
    assert second is not None
    assert listens(second)
    wait_for(lambda: not listens(first))
    other = TCPStore("127.0.0.1", second, None, False, timedelta(seconds=5))
    assert not other.check(["key"])


@pytest.mark.torch
@needs_torch
def test_a_store_listens_on_its_own_interface_alone(stores: StoreProcess) -> None:
    port = stores.fresh(60.0)
    assert port is not None
    hexed = f":{port:04X}"
    tables = [Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text()]
    listening = [
        line.split()[1]
        for table in tables
        for line in table.splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(hexed)
    ]
    assert listening == [f"0100007F{hexed}"]  # 127.0.0.1, as the kernel writes it


@pytest.mark.torch
@needs_torch
def test_once_torch_is_loaded_a_store_takes_no_time(stores: StoreProcess) -> None:
    assert stores.fresh(60.0) is not None
    began = time.monotonic()
    assert stores.fresh(5.0) is not None
    assert time.monotonic() - began < 2.0  # milliseconds; busy machines are slow


@pytest.mark.torch
@needs_torch
def test_a_late_answer_is_not_taken_for_the_next_one(stores: StoreProcess) -> None:
    assert stores.fresh(60.0) is not None
    assert stores.fresh(0.0) is None
    port = stores.fresh(30.0)
    assert port is not None
    assert listens(port)


@pytest.mark.torch
@needs_torch
def test_a_killed_store_process_is_replaced(stores: StoreProcess) -> None:
    stores.start()
    assert stores.pid is not None
    os.kill(stores.pid, signal.SIGKILL)
    wait_for(lambda: (seen := processes.read(stores.pid or 0)) is None or seen.dead)
    assert stores.fresh(60.0) is not None


def test_an_interpreter_without_torch_gives_no_store(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\nexec {sys.executable} -S -E -c 'import torch'\n")
    bare.chmod(0o755)
    stores = StoreProcess(str(bare), "127.0.0.1")
    assert stores.fresh(20.0) is None
    stores.stop()


def test_an_interpreter_that_is_not_there_gives_no_store() -> None:
    stores = StoreProcess("/nowhere/python", "127.0.0.1")
    assert stores.fresh(1.0) is None
    stores.stop()


def test_a_store_process_that_does_not_answer_costs_its_limit_only(tmp_path: Path) -> None:
    mute = tmp_path / "python"
    mute.write_text("#!/bin/sh\nexec sleep 300\n")
    mute.chmod(0o755)
    stores = StoreProcess(str(mute), "127.0.0.1")
    began = time.monotonic()
    assert stores.fresh(0.1) is None
    assert time.monotonic() - began < 5.0
    stores.stop()
    assert stores.pid is None
