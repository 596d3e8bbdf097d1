"""XIDs from NVML's events and from the kernel log: none twice, none lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from healthchecks import listening, xid
from healthchecks.api import Settings
from healthchecks.findings import Severity
from tests.healthchecks import driver

BOOT = "b1"
GPU0, GPU1 = "0000:18:00", "0000:29:00"
with_driver = pytest.mark.skipif(
    driver.COMPILER is None, reason="no C compiler for the stand-in of NVML"
)


def line(address: str, code: int, at: float) -> str:
    return f"[{at:12.6f}] NVRM: Xid (PCI:{address}): {code}, pid=1, name=x, words"


def probe(tmp_path: Path, log: list[str], told: list[tuple[str, int, float]]) -> dict[str, Any]:
    """Let the real probe read a log and a listener's file of a machine booted at 1,000,000."""
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "proc/stat").write_text("btime 1000000\n")
    for address, code, at in told:
        listening._append(
            tmp_path / listening.FILE, {"boot": BOOT, "at": at, "pci": address, "code": code}
        )
    path = tmp_path / "kernel.log"
    path.write_text("\n".join(log))
    return xid.probe(
        Settings(root=str(root), kernel_log=str(path), state=str(tmp_path), boot_id=BOOT)
    )


def unlogged(facts: dict[str, Any]) -> list[tuple[str, int]]:
    return [(address, code) for address, code, _ in xid._unlogged(facts)]


def test_what_both_tell_counts_once(tmp_path: Path) -> None:
    log = [line(GPU0, 48, 100.0), line(GPU0, 63, 100.5)]
    facts = probe(tmp_path, log, [(GPU0, 48, 1_000_101.0), (GPU0, 63, 1_000_101.1)])
    assert unlogged(facts) == []
    (finding,) = xid.judge(facts, Settings())
    assert finding.code == "48"


def test_what_only_nvml_told_is_not_lost(tmp_path: Path) -> None:
    """The ring buffer was overwritten: of two events the log still has the later one."""
    facts = probe(
        tmp_path, [line(GPU0, 79, 900.0)], [(GPU0, 79, 1_000_100.0), (GPU0, 79, 1_000_901.0)]
    )
    assert unlogged(facts) == [(GPU0, 79)]
    other = probe(tmp_path / "b", [line(GPU0, 79, 900.0)], [(GPU1, 79, 1_000_900.0)])
    assert unlogged(other) == [(GPU1, 79)], "another GPU"
    found = {one.component: one.code for one in xid.judge(other, Settings())}
    assert found == {f"pci-{GPU0}": "79", f"pci-{GPU1}": "79"}


def test_one_line_stands_for_one_event_and_a_line_without_a_time_for_any(tmp_path: Path) -> None:
    told = [(GPU0, 31, 1_000_100.0), (GPU0, 31, 1_000_101.0)]
    assert len(unlogged(probe(tmp_path, [line(GPU0, 31, 100.0)], told))) == 1
    undated = "Aug 29 16:20:11 host kernel: NVRM: Xid (PCI:0000:18:00): 31, pid=1"
    assert len(unlogged(probe(tmp_path / "b", [undated], told))) == 1
    assert unlogged(probe(tmp_path / "c", [undated, undated], told)) == []
    mixed = [undated, line(GPU0, 31, 100.0)]
    later = [(GPU0, 31, 1_000_100.0), (GPU0, 31, 1_000_500.0)]
    assert unlogged(probe(tmp_path / "d", mixed, later)) == []


def test_events_count_where_the_log_may_not_be_read(tmp_path: Path) -> None:
    event = {"boot": BOOT, "at": 5.0, "pci": GPU0, "code": 79}
    listening._append(tmp_path / listening.FILE, event)
    hidden = Settings(kernel_log=str(tmp_path / "none"), state=str(tmp_path), boot_id=BOOT)
    (finding,) = xid.judge(xid.probe(hidden), hidden)
    assert (finding.severity, finding.code) == (Severity.CRITICAL, "79")
    assert "told by NVML" in finding.evidence
    with pytest.raises(OSError, match="none"):
        xid.probe(hidden._replace(boot_id="b2"))


def test_another_boot_is_forgotten_and_a_storm_bounded(tmp_path: Path) -> None:
    path = tmp_path / listening.FILE
    for number in range(5):
        listening._append(path, {"boot": "b0", "at": 1.0 + number, "pci": GPU0, "code": 13})
    listening._append(path, {"boot": BOOT, "at": 9.0, "pci": GPU0, "code": 79})
    assert [one["code"] for one in listening.read(tmp_path, BOOT)] == [79]
    path.write_text(path.read_text() * listening.EVENTS_MAX)
    listening._append(path, {"boot": BOOT, "at": 10.0, "pci": GPU0, "code": 48})
    assert {one["code"] for one in listening.read(tmp_path, BOOT)} == {79}


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff\xfe", b"[" * 100_000, b"{}\nnull\n7\n", b'{"boot": "b1", "at": 1e999}\n'],
)
def test_garbage_is_no_event(tmp_path: Path, garbage: bytes) -> None:
    odd = [{"at": 1.0, "pci": "x", "code": 1}, {"at": "a", "pci": GPU0, "code": 1}]
    odd += [{"at": 1.0, "pci": GPU0, "code": code} for code in (True, -1, 1.5, "79", 10**9)]
    lines = [json.dumps({"boot": BOOT, **one}).encode() for one in odd]
    (tmp_path / listening.FILE).write_bytes(garbage + b"\n" + b"\n".join(lines))
    assert listening.read(tmp_path, BOOT) == []


# --- over the stand-in of the driver ---


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    library, running = driver.compiled(tmp_path), []
    env = {"LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML": str(tmp_path / "scenario")}

    def begin(scenario: str) -> subprocess.Popen[str]:
        (tmp_path / "scenario").write_text(scenario)
        argv = ["--listen", "--state", str(tmp_path / "state"), "--boot-id", BOOT]
        child = subprocess.Popen(
            [sys.executable, "-m", "healthchecks", *argv],
            env={**os.environ, **env},
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(child)
        return child

    yield begin
    for child in running:
        child.kill()
        child.communicate()


def told(tmp_path: Path, count: int) -> list[tuple[str, int]]:
    """Wait until so many events are written down."""
    end = time.monotonic() + 30
    while len(found := listening.read(tmp_path / "state", BOOT)) < count:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return [(one["pci"], one["code"]) for one in found]


@with_driver
def test_a_listener_writes_each_event_down_once_and_the_check_tells_it(
    tmp_path: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    start("count=2\nevent=0:63\nevent=1:79\n")
    assert told(tmp_path, 2) == [(GPU0, 63), (GPU1, 79)]
    with (tmp_path / "scenario").open("a") as scenario:
        scenario.write("event=1:119\n")
    assert told(tmp_path, 3)[2:] == [(GPU1, 119)]
    log = tmp_path / "kernel.log"
    log.write_text(line(GPU1, 79, 1.0))
    argv = ["--only", "xid", "--kernel-log", str(log), "--boot-id", BOOT, "--expect-gpus", "2"]
    code, said = driver.run(
        tmp_path / driver.NAME,
        tmp_path / "scenario",
        *argv,
        *("--state", str(tmp_path / "state")),
    )
    found = {one["component"]: one for one in said if "check" in one}
    assert code == 2
    assert found[f"pci-{GPU1}"]["code"] == "79"
    assert "also Xid 119" in found[f"pci-{GPU1}"]["evidence"]
    assert found[f"pci-{GPU0}"]["code"] == "63"


@with_driver
def test_only_one_listens_and_another_may_try_again(
    tmp_path: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    start("event=0:63\n")
    told(tmp_path, 1)
    second = start("event=0:63\n")
    assert second.wait(30) == listening.AGAIN
    assert told(tmp_path, 1) == [(GPU0, 63)]


@with_driver
@pytest.mark.parametrize(
    ("scenario", "code", "says"),
    [
        ("rc.Init=9\n", listening.NOTHING, "NVML"),
        ("*.rc.RegisterEvents=3\n", listening.NOTHING, "no GPU here tells events"),
        ("rc.EventSetWait_v2=999\n", listening.AGAIN, "NVML"),
    ],
)
def test_what_cannot_listen_says_why_and_whether_to_try_again(
    tmp_path: Path,
    start: Callable[[str], subprocess.Popen[str]],
    scenario: str,
    code: int,
    says: str,
) -> None:
    child = start(scenario)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == code
    assert says in errors
