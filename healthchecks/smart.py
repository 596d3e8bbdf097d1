"""What NVMe disks say of their own health (`nvme smart-log`, which needs root)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from healthchecks.api import CannotLookError, Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

WORN = 90  #: percent of the rated life used
ASK_MAX = 2.0  #: seconds for each disk


def _disks(root: str) -> list[str]:
    return sorted(one.name for one in Path(root, "sys/class/nvme").glob("nvme[0-9]*"))


def probe(settings: Settings) -> dict[str, Any]:
    """Ask each disk for its log."""
    program = shutil.which("nvme")
    if program is None:
        raise CannotLookError("nvme (nvme-cli) is not installed")
    return {"disks": {name: _ask(program, name) for name in _disks(settings.root)}}


def _ask(program: str, name: str) -> dict[str, Any]:
    argv = [program, "smart-log", "-o", "json", f"/dev/{name}"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=ASK_MAX, check=True)
        body = json.loads(done.stdout)
        names = ("critical_warning", "avail_spare", "spare_thresh", "percent_used", "media_errors")
        return {one: int(body[one]) for one in names if one in body}
    except subprocess.CalledProcessError as error:
        return {"error": error.stderr.decode(errors="replace").strip()[:200]}
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError) as error:
        return {"error": str(error)[:200]}


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say which disk is failing or worn."""
    del settings
    said = [_one(name, log) for name, log in facts["disks"].items()]
    return said or [Finding("smart", "host", Severity.OK, Fault.HARDWARE, "no NVMe disk is here")]


def _one(name: str, log: dict[str, Any]) -> Finding:
    severity, evidence, code, remedy = Severity.OK, "the disk has no complaint", "", ""
    if "error" in log:
        severity, evidence = Severity.UNKNOWN, log["error"]
    elif log.get("critical_warning"):
        severity, code, remedy = Severity.CRITICAL, "critical-warning", "replace"
        evidence = f"critical warning {log['critical_warning']:#x}"
    elif log.get("avail_spare", 100) < log.get("spare_thresh", 0):
        severity, code, remedy = Severity.CRITICAL, "spare", "replace"
        evidence = f"{log['avail_spare']} % spare, at least {log['spare_thresh']} %"
    elif log.get("percent_used", 0) >= WORN:
        severity, code, remedy = Severity.WARNING, "worn", "replace"
        evidence = f"{log['percent_used']} % of its rated life is used"
    return Finding("smart", name, severity, Fault.HARDWARE, evidence, code, remedy)


def skip(settings: Settings) -> str | None:
    """Say why nothing is asked."""
    return None if _disks(settings.root) else "no NVMe disk is here"


CHECK = Check("smart", Level.PASSIVE, 10.0, probe, judge, skip)
