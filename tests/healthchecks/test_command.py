"""`python -m healthchecks` as its callers see it: streams, exit codes, and what it costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import healthchecks
from healthchecks import runner
from tests.healthchecks.hosts import healthy

HERE = Path(healthchecks.__file__).parent
XID_79 = "[12.5] NVRM: Xid (PCI:0000:9b:00): 79, pid=1, GPU has fallen off the bus.\n"
GPU_CHECKS = [name for name, where in runner.CHECKS.items() if where.startswith("gpu.")]
NAMES = [name for name, where in runner.CHECKS.items() if not where.startswith("active.")]
CPU_NODE = ("--expect-gpus", "0", "--fast")


def run(*argv: str, python: tuple[str, ...] = ("-m", "healthchecks")) -> Any:
    return subprocess.run(
        [sys.executable, *python, *argv], capture_output=True, text=True, timeout=60, check=False
    )


def lines(done: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return healthy(tmp_path) / "kernel.log"


def on(log: Path) -> tuple[str, ...]:
    """Return the options of a healthy host without GPUs, whose kernel log this is."""
    return (*CPU_NODE, "--root", str(log.parent), "--kernel-log", str(log))


def test_a_healthy_node_is_0_and_the_stream_ends_with_its_coverage(log: Path) -> None:
    done = run("-o", "json", *on(log), "--boot-id", "boot-7")
    *findings, last = lines(done)
    assert done.returncode == 0
    assert {one["severity"] for one in findings} == {"OK"}
    assert {one["boot_id"] for one in findings} == {"boot-7"}
    assert last["coverage"]["expected"] == list(NAMES)
    assert {"nvml", "xid", "disk", "clock", "kernel", "mounts"} <= set(last["coverage"]["passed"])
    assert set(last["coverage"]["skipped"]) >= set(GPU_CHECKS)
    assert last["coverage"]["complete"]


def test_an_xid_79_is_critical_and_exits_2(log: Path) -> None:
    log.write_text(XID_79)
    done = run("-o", "json", "--only", "xid", "--kernel-log", str(log))
    finding, last = lines(done)
    assert done.returncode == 2
    assert (finding["severity"], finding["code"], finding["class"]) == (
        "CRITICAL",
        "79",
        "hardware",
    )
    assert last["coverage"]["failed"] == ["xid"]


def test_text_marks_what_is_fine_and_what_is_not(log: Path) -> None:
    log.write_text(XID_79)
    done = run(*on(log))
    assert done.stdout.count("✘") == 1
    assert "✔ kernel host" in done.stdout
    assert "✘ xid pci-0000:9b:00: Xid 79 (GPU has fallen off the bus)" in done.stdout
    assert "  -> reboot" in done.stdout
    assert re.search(rf"\n{len(NAMES)} checks: \d+ passed, 1 failed, \d+ skipped\n$", done.stdout)


def test_a_log_that_is_not_there_is_unknown_and_exits_3(tmp_path: Path) -> None:
    done = run("-o", "json", "--only", "xid", "--kernel-log", str(tmp_path / "none"))
    finding, last = lines(done)
    assert done.returncode == 3
    assert finding["severity"] == "UNKNOWN"
    assert "No such file" in last["coverage"]["skipped"]["xid"]


@pytest.mark.parametrize("wrong", [("--only", "nope"), ("--level", "heroic"), ("--what",)])
def test_wrong_usage_exits_3_not_2_which_would_mean_a_critical_node(wrong: tuple[str, ...]) -> None:
    done = run(*wrong)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "healthchecks" in done.stderr


def test_a_machine_without_gpus_does_not_claim_to_have_seen_them(tmp_path: Path) -> None:
    done = run("-o", "json", "--only", "nvml", "--root", str(tmp_path))
    if done.returncode == 0:
        pytest.skip("this machine has GPUs")
    assert done.returncode == 3
    assert lines(done)[0]["severity"] == "UNKNOWN"


def test_it_runs_as_a_file_without_being_installed(log: Path, tmp_path: Path) -> None:
    file = str(HERE / "__main__.py")
    argv = [sys.executable, "-S", "-E", file, *on(log)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


#: A child's peak memory begins with its parent's at the fork: measure from a parent that is small.
MEASURE = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def test_a_passive_run_is_small(log: Path) -> None:
    argv = [sys.executable, "-m", "healthchecks", *on(log)]
    small = [sys.executable, "-S", "-E", "-c", MEASURE, *argv]
    done = subprocess.run(small, capture_output=True, text=True, timeout=60, check=True)
    code, cpu_seconds, kilobytes = map(float, done.stdout.split())
    assert code == 0
    assert cpu_seconds < 3  # of processor, not of a loaded machine's wall clock
    assert kilobytes < 60 * 1024


def test_nothing_of_ours_is_imported() -> None:
    code = "import sys, healthchecks.__main__ as m; m.main(['--fast']); print(*sys.modules)"
    done = run(python=("-c", code))
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {"orchestrator", "providers", "model", "click", "pydantic", "yaml"}


def test_without_a_driver_the_host_is_checked_all_the_same(log: Path) -> None:
    argv = ("-o", "json", "--fast", "--root", str(log.parent), "--kernel-log", str(log))
    began = time.monotonic()
    done = run(*argv)
    findings = lines(done)[:-1]
    if not any(one["check"] == "nvml" and one["severity"] == "UNKNOWN" for one in findings):
        pytest.skip("this machine has a driver")
    assert time.monotonic() - began < 30  # 3 s on an idle machine
    assert done.returncode == 3
    (blind,) = (one for one in findings if one["severity"] != "OK")
    assert (blind["check"], blind["severity"]) == ("nvml", "UNKNOWN")
    assert "NVML" in blind["evidence"]


def test_a_list_of_all_detectors_can_be_read(log: Path) -> None:
    done = run("--list")
    assert done.returncode == 0
    assert "nvml:gpu-lost" in done.stdout
    assert "explicit" in done.stdout


def test_a_cluster_s_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("[]")
    done = run("--cluster", str(tmp_path / "cluster.yaml"))
    assert done.returncode == 3
    assert "not an object" in done.stderr


def test_the_operator_s_own_row_for_an_xid_wins(log: Path) -> None:
    log.write_text("[5.0] NVRM: Xid (PCI:0000:9b:00): 31, pid=1, name=x, MMU Fault\n")
    cluster = log.parent / "cluster.yaml"
    cluster.write_text('{"xid": {"31": ["page fault", "CRITICAL", "hardware", "reset"]}}')
    done = run("-o", "json", "--only", "xid", *on(log), "--cluster", str(cluster))
    finding = lines(done)[0]
    assert (finding["severity"], finding["remedy"]) == ("CRITICAL", "reset")


@pytest.mark.parametrize(
    ("code", "severity"),
    [(0, "OK"), (1, "WARNING"), (2, "CRITICAL"), (3, "UNKNOWN"), (9, "UNKNOWN")],
)
def test_a_plug_in_speaks_by_nagios_exit_codes(tmp_path: Path, code: int, severity: str) -> None:
    plugin = tmp_path / "own_check"
    plugin.write_text(f"#!/bin/sh\necho 'fans at 80 %'\nexit {code}\n")
    plugin.chmod(0o755)
    done = run("-o", "json", "--plugin", str(plugin), "--only", "plugin-own_check")
    finding, last = lines(done)
    assert (finding["check"], finding["severity"]) == ("plugin-own_check", severity)
    assert "fans at 80 %" in finding["evidence"]
    assert last["coverage"]["expected"] == ["plugin-own_check"]


def test_a_plug_in_that_hangs_is_unknown(tmp_path: Path) -> None:
    plugin = tmp_path / "slow"
    plugin.write_text("#!/bin/sh\nexec sleep 600\n")
    plugin.chmod(0o755)
    done = run("-o", "json", "--plugin", str(plugin), "--only", "plugin-slow", "--limit", "0.5")
    assert lines(done)[0]["severity"] == "UNKNOWN"


def test_what_is_learnt_from_several_nodes_is_joined(tmp_path: Path) -> None:
    for number, rate in enumerate((780.0, 800.0, 790.0)):
        body = {"driver": "550.1", "gemm_tflops": rate, "gpu_serials": [str(number)], "ib_ports": 8}
        (tmp_path / f"{number}.json").write_text(json.dumps(body))
    done = run("learn", *(str(tmp_path / f"{one}.json") for one in range(3)))
    assert json.loads(done.stdout) == {
        "driver": "550.1",
        "gemm_tflops": 790.0,
        "gpu_serials": ["0", "1", "2"],
        "ib_ports": 8,
    }
    assert run("learn", str(tmp_path / "none.json")).returncode == 3
    assert run("lern").returncode == 3
