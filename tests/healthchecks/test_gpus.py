"""All GPU checks through the real nvidia-ml-py, over a C library in NVML's place."""

from __future__ import annotations

import ctypes
import json
import time
from pathlib import Path

import pytest

from healthchecks import runner
from healthchecks.api import Settings
from healthchecks.findings import Finding, Severity
from healthchecks.memory import Memory
from tests.healthchecks import driver
from tests.healthchecks.defects import CLUSTER, DEFECTS, LOADED, Defect

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
pytestmark = pytest.mark.skipif(
    driver.COMPILER is None, reason="no C compiler for the stand-in of NVML"
)
GPU_CHECKS = [name for name, where in runner.CHECKS.items() if where.startswith("gpu.")]
CHECKS = ("nvml", *GPU_CHECKS)
SETTINGS = Settings(gpus_expected=8, idle=True, cluster=CLUSTER)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the stand-in and load it, so that every later look for NVML finds it by its name."""
    path = driver.compiled(tmp_path_factory.mktemp("nvml"))
    ctypes.CDLL(str(path))
    return path


@pytest.fixture
def scenario(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "scenario"
    path.write_text("")
    monkeypatch.setenv("FAKE_NVML", str(path))
    return path


def look(settings: Settings = SETTINGS, memory: Memory | None = None) -> list[Finding]:
    ran = runner.run(runner.load(CHECKS), settings, limit=30, memory=memory)
    assert ran.coverage.complete
    return list(ran.findings)


def wrong(findings: list[Finding]) -> list[tuple[str, ...]]:
    return [
        (one.component, f"{one.check}:{one.code}", one.severity.name, one.remedy)
        for one in findings
        if one.severity is not Severity.OK
    ]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda one: f"{one.detector}-{one.scenario[-24:]}")
def test_a_defect_is_found_with_its_severity_and_remedy(scenario: Path, defect: Defect) -> None:
    scenario.write_text(defect.scenario.replace(";", "\n") + "\n")
    idle = not defect.scenario.startswith(LOADED)
    said = wrong(look(SETTINGS._replace(idle=idle)))
    mine = (defect.component, defect.detector, defect.severity, defect.remedy)
    assert mine in said
    others = [one for one in said if one != mine and one[2] != "UNKNOWN"]
    assert others == []


@pytest.mark.parametrize(
    "quirks",
    ["", driver.HEALTHY_A100, driver.IDLE_QUIRKS, driver.HEALTHY_A100 + driver.IDLE_QUIRKS],
    ids=["h100", "a100", "h100-idle", "a100-idle"],
)
def test_a_healthy_node_is_left_alone(scenario: Path, quirks: str) -> None:
    scenario.write_text(quirks)
    assert wrong(look()) == []


def test_a_busy_node_under_its_power_cap_is_left_alone(scenario: Path) -> None:
    scenario.write_text(LOADED.replace(";", "\n") + "*.reasons=0x4\n*.process=77\n")
    assert wrong(look(SETTINGS._replace(idle=False))) == []


def test_a_flicker_of_the_slowdown_bit_is_no_finding(scenario: Path) -> None:
    from healthchecks.gpu import heat

    gpu = {"index": 0, "reasons": [0x8, 0x1, 0x8]}
    assert list(heat.clocks(gpu, SETTINGS)) == []


def test_replays_are_judged_by_their_growth(scenario: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state", "boot-1")
    scenario.write_text("4.pcie.replays=100000\n")
    assert wrong(look(memory=memory)) == []  # grown when, nobody knows
    scenario.write_text("4.pcie.replays=109000\n")
    ((component, detector, severity, _),) = wrong(look(memory=memory))
    assert (component, detector, severity) == ("gpu4", "pcie:replays", "WARNING")
    assert wrong(look(memory=memory)) == []
    scenario.write_text("4.pcie.replays=990000\n")
    assert wrong(look(memory=memory._replace(boot_id="boot-2"))) == []


@pytest.mark.parametrize("where", ["hang.Init", "3.hang.GetTemperature", "3.hang.GetNvLinkState"])
def test_a_driver_that_hangs_is_a_finding_within_its_limit(scenario: Path, where: str) -> None:
    scenario.write_text(f"{where}=1\n")
    began = time.monotonic()
    ran = runner.run(runner.load(("nvlink", "ecc", "nvml")), SETTINGS, limit=1.0)
    assert time.monotonic() - began < 15
    assert "timed out after 1 s" in {one.evidence for one in ran.findings}
    assert ran.coverage.complete
    assert "nvlink" in ran.coverage.skipped


def test_a_lost_gpu_leaves_the_others_judged(scenario: Path) -> None:
    scenario.write_text("3.rc=15\n5.nvlink.1.state=0\n")
    said = {(one[0], one[1]): one[2] for one in wrong(look())}
    assert said["gpu3", "nvml:gpu-lost"] == "CRITICAL"
    assert said["gpu5", "nvlink:inactive"] == "CRITICAL"
    assert said["gpu3", "ecc:"] == "UNKNOWN"


def test_the_command_says_it_too(library: Path, scenario: Path, tmp_path: Path) -> None:
    scenario.write_text("2.rows.failure=1\n")
    (tmp_path / "cluster.yaml").write_text(json.dumps(CLUSTER))
    only = ("--only", ",".join(CHECKS), "--cluster", str(tmp_path / "cluster.yaml"))
    code, lines = driver.run(library, scenario, "--expect-gpus", "8", *only)
    *findings, last = lines
    bad = [one for one in findings if one["severity"] != "OK"]
    assert code == 2
    assert [(one["component"], one["check"], one["code"], one["serial"]) for one in bad] == [
        ("gpu2", "remap", "failure", "1652")
    ]
    assert last["coverage"]["failed"] == ["remap"]
    assert last["coverage"]["complete"]


def test_there_are_enough_defects_to_mean_something() -> None:
    assert len({(one.scenario, one.detector) for one in DEFECTS}) >= 40
