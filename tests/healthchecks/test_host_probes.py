"""Probes of the host over folders of our own in place of proc and sys."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from healthchecks import runner
from healthchecks.api import Settings
from healthchecks.findings import Severity
from healthchecks.memory import Memory
from tests.healthchecks.hosts import healthy, write

HOST = ("kernel", "sxid", "xid", "mounts", "limits", "edac", "stuck", "infiniband", "disk")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return healthy(tmp_path)


def look(
    root: Path, memory: Memory | None = None, expects: Mapping[str, Any] | None = None
) -> dict[str, tuple[str, str]]:
    settings = Settings(
        root=str(root),
        kernel_log=str(root / "kernel.log"),
        disks=(str(root),),
        cluster=expects or {},
    )
    ran = runner.run(runner.load(HOST), settings, memory=memory)
    assert ran.coverage.complete
    return {
        f"{one.check}/{one.component}": (one.severity.name, one.code)
        for one in ran.findings
        if one.severity is not Severity.OK
    }


def test_a_healthy_host_is_left_alone(root: Path) -> None:
    assert look(root) == {}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("proc/self/limits", "Max locked memory  65536 65536 bytes\n", "limits/memlock"),
        ("sys/devices/system/edac/mc/mc0/ue_count", "3\n", "edac/mc0"),
        ("sys/class/infiniband/mlx5_0/ports/1/state", "1: DOWN\n", "infiniband/mlx5_0:1"),
        ("kernel.log", "[5.0] Kernel panic - not syncing: x\n", "kernel/cpu"),
        (
            "kernel.log",
            "[5.0] nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, x\n",
            "sxid/nvswitch0",
        ),
    ],
)
def test_a_defect_of_the_host_is_read_from_its_files(
    root: Path, name: str, text: str, says: str
) -> None:
    write(root, name, text)
    assert says in look(root)


def test_a_port_that_stays_down_becomes_critical(root: Path) -> None:
    memory = Memory(root / "state", "boot-1")
    write(root, "sys/class/infiniband/mlx5_0/ports/1/state", "1: DOWN\n")
    assert look(root, memory)["infiniband/mlx5_0:1"] == ("WARNING", "down")
    left = root / "state/infiniband.json"
    body = json.loads(left.read_text())
    body["at"] -= 300
    left.write_text(json.dumps(body))
    assert look(root, memory)["infiniband/mlx5_0:1"] == ("CRITICAL", "down")


GARBAGE = ["", "\n", "garbage", "4: ACTIV", "-7", "9" * 400, "\x00\xff", "٣"]
PORT = "sys/class/infiniband/mlx5_0/ports/1/"


def later(root: Path, check: str, seconds: float) -> None:
    """Let what was remembered of a check be that much older."""
    left = root / f"state/{check}.json"
    body = json.loads(left.read_text())
    body["at"] -= seconds
    left.write_text(json.dumps(body))


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("file", ["state", "rate"])
def test_a_port_that_says_garbage_is_unknown_however_long(
    root: Path, file: str, garbage: str
) -> None:
    memory = Memory(root / "state", "boot-1")
    assert look(root, memory) == {}
    write(root, PORT + file, garbage)
    for _ in range(3):
        later(root, "infiniband", 300)
        assert look(root, memory) == {"infiniband/mlx5_0:1": ("UNKNOWN", "")}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_counter_that_could_not_be_read_once_has_not_grown(root: Path, garbage: str) -> None:
    memory = Memory(root / "state", "boot-1")
    for counter in ("link_downed", "symbol_error"):
        write(root, f"{PORT}counters/{counter}", garbage)
    assert look(root, memory) == {}
    for counter in ("link_downed", "symbol_error"):
        write(root, f"{PORT}counters/{counter}", "5000\n")  # of a whole life
    assert look(root, memory) == {}
    later(root, "infiniband", 60)
    write(root, f"{PORT}counters/link_downed", "5004\n")
    assert look(root, memory)["infiniband/mlx5_0:1"] == ("CRITICAL", "flaps")


def test_a_port_that_is_down_still_counts_after_a_look_that_could_not_tell(root: Path) -> None:
    memory = Memory(root / "state", "boot-1")
    write(root, PORT + "state", "1: DOWN\n")
    look(root, memory)
    later(root, "infiniband", 200)
    look(root, memory)
    write(root, PORT + "state", "garbage")
    look(root, memory)
    write(root, PORT + "state", "1: DOWN\n")
    later(root, "infiniband", 60)
    assert look(root, memory)["infiniband/mlx5_0:1"] == ("CRITICAL", "down")


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("proc/self/limits", "limits/host"),
        ("proc/meminfo", "limits/host"),
        ("sys/devices/system/edac/mc/mc0/ue_count", "edac/host"),
        ("sys/devices/system/edac/mc/mc0/ce_count", "edac/host"),
    ],
)
def test_garbage_of_the_kernel_is_neither_well_nor_a_fault(
    root: Path, file: str, says: str, garbage: str
) -> None:
    write(root, file, garbage)
    assert look(root, expects={"memory": 2_000_000}) == {says: ("UNKNOWN", "")}


def test_a_port_that_cannot_be_read_is_not_counted_as_missing(root: Path) -> None:
    write(root, PORT + "state", "garbage")
    assert look(root, expects={"ib_ports": 1}) == {"infiniband/mlx5_0:1": ("UNKNOWN", "")}
    assert look(root, expects={"ib_ports": 2})["infiniband/host"] == ("CRITICAL", "ports")


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"boot_id": "boot-1"}', "\x00" * 9])
def test_a_memory_that_is_torn_is_a_first_look(root: Path, torn: str) -> None:
    memory = Memory(root / "state", "boot-1")
    write(root, "state/edac.json", torn)
    assert look(root, memory) == {}
    assert json.loads((root / "state/edac.json").read_text())["boot_id"] == "boot-1"


def test_a_real_mount_that_answers_is_fine(root: Path) -> None:
    write(root, "proc/self/mounts", f"server:/x {root} nfs4 rw 0 0\nserver:/y /gone nfs rw 0 0\n")
    said = look(root)
    assert said == {"mounts//gone": ("WARNING", "error")}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_unknown(root: Path) -> None:
    (root / "proc/meminfo").chmod(0)
    assert look(root)["limits/host"] == ("UNKNOWN", "")
