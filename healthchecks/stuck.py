"""Processes that wait in the kernel and cannot be killed (state D), seen long enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

LONG = 300.0  #: seconds in state D (GCM)


def probe(settings: Settings) -> dict[str, Any]:
    """List the processes that are in state D now, with the start that tells reused numbers."""
    found = {}
    for stat in Path(settings.root, "proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text(errors="replace").rpartition(")")
        except OSError:  # it ended meanwhile
            continue
        fields = rest.split()
        if fields and fields[0] == "D":
            found[f"{stat.parent.name}-{fields[19]}"] = name.partition("(")[2]
    return {"waiting": found}


def remember(facts: dict[str, Any]) -> dict[str, float]:
    """Keep for how many seconds each of them has been seen waiting."""
    before = facts.get("before") or {"seconds": 0.0, "kept": {}}
    kept, more = before["kept"], before["seconds"]
    return {one: kept[one] + more if one in kept else 0.0 for one in facts["waiting"]}


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say which have waited too long; a process that just waits for its disk is normal."""
    del settings
    long = {one: seconds for one, seconds in remember(facts).items() if seconds >= LONG}
    if not long:
        evidence = f"{len(facts['waiting'])} processes wait in the kernel, none for long"
        return [Finding("stuck", "host", Severity.OK, Fault.HARDWARE, evidence)]
    names = ", ".join(f"{facts['waiting'][one]} ({one.partition('-')[0]})" for one in long)
    evidence = f"unkillable for {max(long.values()):.0f} s: {names}"
    return [
        Finding("stuck", "host", Severity.WARNING, Fault.HARDWARE, evidence, "state-d", "reboot")
    ]


CHECK = Check("stuck", Level.PASSIVE, 3.0, probe, judge, remember=remember)
