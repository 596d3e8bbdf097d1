"""Limits that a job meets: locked memory for RDMA, open files, huge pages, memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

FILES_MIN = 65_536
FILES_SHARE = 0.8  #: of the system's open files
MEMORY_SHARE = 0.95  #: of what is expected
UNLIMITED = -1


def probe(settings: Settings) -> dict[str, Any]:
    """Read the limits of this process and the memory of this node from proc."""
    proc = Path(settings.root, "proc")
    limits = (proc / "self/limits").read_text()
    memory = (proc / "meminfo").read_text()
    used, _, most = (proc / "sys/fs/file-nr").read_text().split()
    return {
        "memlock": _limit(limits, "Max locked memory"),
        "files": _limit(limits, "Max open files"),
        "system_files": [int(used), int(most)],
        "memory": _kib(memory, "MemTotal") * 1024,
        "hugepages": _kib(memory, "HugePages_Total"),
        "rdma": any(Path(settings.root, "sys/class/infiniband").glob("*")),
    }


def _limit(text: str, name: str) -> int:
    found = re.search(rf"^{name}\s+(\d{{1,20}}|unlimited)\b", text, re.MULTILINE)
    return UNLIMITED if found is None or found[1] == "unlimited" else int(found[1])


def _kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say which limit a job would meet; a node's own finding for each."""
    wrong = [
        Finding("limits", component, Severity.WARNING, Fault.CONFIG, evidence, code)
        for component, code, evidence in _wrong(facts, settings)
    ]
    if wrong:
        return wrong
    return [Finding("limits", "host", Severity.OK, Fault.CONFIG, "no limit that a job would meet")]


def _wrong(facts: dict[str, Any], settings: Settings) -> list[tuple[str, str, str]]:
    said = []
    if facts["rdma"] and facts["memlock"] != UNLIMITED:
        evidence = f"locked memory is limited to {facts['memlock']} bytes: RDMA needs no limit"
        said.append(("memlock", "memlock", evidence))
    if UNLIMITED < facts["files"] < FILES_MIN:
        said.append(("files", "files", f"{facts['files']} open files, {FILES_MIN} at least"))
    used, most = facts["system_files"]
    if most and used > FILES_SHARE * most:
        said.append(("files", "system-files", f"{used} of the system's {most} files are open"))
    wanted = settings.expected("hugepages")
    if wanted is not None and facts["hugepages"] < wanted:
        said.append(("hugepages", "hugepages", f"{facts['hugepages']} huge pages of {wanted}"))
    memory = settings.expected("memory")
    if memory and facts["memory"] < MEMORY_SHARE * memory:
        evidence = f"{facts['memory'] / 1e9:.0f} GB of memory, {memory / 1e9:.0f} GB expected"
        said.append(("memory", "memory", evidence))
    return said


CHECK = Check("limits", Level.PASSIVE, 3.0, probe, judge)
