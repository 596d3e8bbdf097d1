"""A driver without a GPU: the stand-in for NVML's library, compiled here, and its scenarios."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

NAME = "libnvidia-ml.so.1"
COMPILER = shutil.which("gcc") or shutil.which("cc")
HEALTHY_A100 = """
*.name=NVIDIA A100-SXM4-80GB
*.nvlinks=12
*.pcie.generation.max=4
*.clock.sm.max=1410
*.clock.memory=1593
*.clock.memory.max=1593
*.power.limit=400000
*.power.default=400000
"""
#: At idle a link trains down, and the driver notes why clocks are low: no fault.
IDLE_QUIRKS = """
*.pcie.generation=1
*.reasons=0x5
*.memory.reserved=629145600
"""


def compiled(folder: Path) -> Path:
    """Compile the stand-in into a folder; return its path."""
    source = Path(__file__).with_name("fake_nvml.c")
    argv = [str(COMPILER), "-shared", "-fPIC", f"-Wl,-soname,{NAME}", "-o", str(folder / NAME)]
    subprocess.run([*argv, str(source)], check=True)
    return folder / NAME


def run(library: Path, scenario: Path, *argv: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the checks as their callers do; return the exit code and the lines."""
    done = subprocess.run(
        [sys.executable, "-m", "healthchecks", "-o", "json", *argv],
        env={**os.environ, "LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML": str(scenario)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
