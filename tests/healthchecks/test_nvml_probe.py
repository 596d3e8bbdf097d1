"""The nvml probe through the real nvidia-ml-py, over a small C library in NVML's place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
COMPILER = shutil.which("gcc") or shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler for the stand-in of NVML")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    name = "libnvidia-ml.so.1"
    source = Path(__file__).with_name("fake_nvml.c")
    subprocess.run(
        [str(COMPILER), "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source],
        check=True,
    )
    return folder


def nvml(library: Path, *argv: str, **fake: str) -> dict[str, dict[str, Any]]:
    """Run the check as its callers do; return its findings by component."""
    done = subprocess.run(
        [sys.executable, "-m", "healthchecks", "--only", "nvml", "-o", "json", *argv],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), **fake},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["component"]: one for one in lines if "component" in one}


def test_gpus_that_answer_are_named_with_their_serials(library: Path) -> None:
    said = nvml(library, "--expect-gpus", "2", FAKE_NVML_GPUS="2")
    assert {one["severity"] for one in said.values()} == {"OK"}
    assert said["gpu1"]["serial"] == "1651"


def test_a_gpu_too_few_is_critical(library: Path) -> None:
    host = nvml(library, "--expect-gpus", "2", FAKE_NVML_GPUS="1")["host"]
    assert (host["severity"], host["code"]) == ("CRITICAL", "gpu-count")


def test_a_lost_gpu_is_critical_and_the_others_are_not(library: Path) -> None:
    said = nvml(library, "--expect-gpus", "2", FAKE_NVML_GPUS="2", FAKE_NVML_RC="1=15")
    assert (said["gpu1"]["severity"], said["gpu1"]["code"]) == ("CRITICAL", "gpu-lost")
    assert said["gpu0"]["severity"] == "OK"


def test_a_driver_that_is_not_loaded_is_critical_where_gpus_are_expected(library: Path) -> None:
    host = nvml(library, "--expect-gpus", "1", FAKE_NVML_INIT="9")["host"]
    assert (host["severity"], host["code"], host["class"]) == ("CRITICAL", "driver", "config")


def test_a_gpu_that_hangs_the_driver_is_a_finding_within_the_limit(library: Path) -> None:
    host = nvml(library, "--expect-gpus", "1", "--limit", "1", FAKE_NVML_HANG="0")["host"]
    assert (host["severity"], host["evidence"]) == ("UNKNOWN", "timed out after 1 s")
