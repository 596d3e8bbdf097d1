"""Errors of the host's memory, as its controllers count them (EDAC, sysfs)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

CORRECTED_PER_HOUR = 1_000


def probe(settings: Settings) -> dict[str, Any]:
    """Read the counters of every memory controller."""
    folder = Path(settings.root, "sys/devices/system/edac/mc")
    return {"controllers": {one.name: _counts(one) for one in sorted(folder.glob("mc[0-9]*"))}}


def _counts(folder: Path) -> dict[str, int]:
    names = {"uncorrected": "ue_count", "corrected": "ce_count"}
    return {name: _count(folder / file) for name, file in names.items()}


def _count(path: Path) -> int:
    """Read a counter of the kernel's; ValueError for what is none, and the check is UNKNOWN."""
    text = path.read_text().strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"{path.name} of {path.parent.name} says no number: {text[:40]!r}")
    return int(text)


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say which controller has errors: an uncorrected one is fatal, many corrected ones warn."""
    del settings
    said = [one for name, now in facts["controllers"].items() if (one := _one(name, now, facts))]
    if said:
        return said
    evidence = f"{len(facts['controllers'])} memory controllers: no uncorrected error"
    return [Finding("edac", "host", Severity.OK, Fault.HARDWARE, evidence)]


def _one(name: str, now: dict[str, int], facts: dict[str, Any]) -> Finding | None:
    if now["uncorrected"]:
        evidence = f"{now['uncorrected']} uncorrected memory errors"
        return _finding(name, Severity.CRITICAL, evidence, "uncorrected", "replace")
    before = facts.get("before")
    if before and name in before["kept"]:
        grown = now["corrected"] - before["kept"][name]["corrected"]
        rate = grown * 3600 / max(60.0, before["seconds"])
        if rate > CORRECTED_PER_HOUR:
            evidence = f"{rate:.0f} corrected memory errors an hour"
            return _finding(name, Severity.WARNING, evidence, "corrected", "")
    return None


def _finding(name: str, severity: Severity, evidence: str, code: str, remedy: str) -> Finding:
    return Finding("edac", name, severity, Fault.HARDWARE, evidence, code, remedy)


CHECK = Check("edac", Level.PASSIVE, 3.0, probe, judge, remember=lambda facts: facts["controllers"])
