"""Recordings of machines: what a run keeps is a case, and the judges say the same of it again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from healthchecks import learn, record, runner
from healthchecks.api import Level, Settings
from tests.healthchecks.hosts import healthy
from tests.healthchecks.test_cases import compare

RECORDED = sorted(Path(__file__).with_name("recordings").glob("*/*/recorded.json"))


def judged_again(path: Path) -> None:
    case: dict[str, Any] = json.loads(path.read_text())
    (check,) = runner.load([path.parent.name], Level.ACTIVE)
    settings = Settings(**case["settings"])
    compare(list(check.judge(case["seen"], settings)), case)


@pytest.mark.parametrize("path", RECORDED, ids=lambda one: f"{one.parts[-3]}-{one.parts[-2]}")
def test_a_machine_that_was_met_is_judged_as_it_was(path: Path) -> None:
    judged_again(path)


def test_a_run_keeps_what_it_saw_as_cases(tmp_path: Path) -> None:
    log = healthy(tmp_path / "host") / "kernel.log"
    log.write_text("[12.5] NVRM: Xid (PCI:0000:9b:00): 79, pid=1, fallen off the bus.\n")
    argv = ["-o", "json", "--root", str(log.parent), "--kernel-log", str(log)]
    argv += ["--expect-gpus", "0", "--fast", "--record", str(tmp_path / "kept")]
    done = subprocess.run(
        [sys.executable, "-m", "healthchecks", *argv], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 2, done
    kept = sorted((tmp_path / "kept").glob("*/recorded.json"))
    assert {"xid", "kernel", "limits", "disk"} <= {path.parent.name for path in kept}
    for path in kept:
        judged_again(path)
    said = json.loads((tmp_path / "kept/xid/recorded.json").read_text())["says"]
    assert [(one["severity"], one["code"]) for one in said] == [("CRITICAL", "79")]
    learnt = json.loads(learn.main([str(tmp_path / "kept")], Settings(), 1.0))
    assert learnt == {"memory": 2113456789 * 1024, "hugepages": 0, "ib_ports": 1, "ib_rate": 400}


def test_a_folder_without_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--record"):
        record.read(tmp_path)
