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
        "memory": _bytes(memory, "MemTotal"),
        "hugepages": _figure(memory, "HugePages_Total") or 0,  # a kernel may have none
        "rdma": any(Path(settings.root, "sys/class/infiniband").glob("*")),
    }


def _limit(text: str, name: str) -> int | None:
    """Return the limit, UNLIMITED, or None where the text does not say it."""
    found = re.search(rf"^{name}\s+(\d{{1,20}}|unlimited)\b", text, re.MULTILINE | re.ASCII)
    if found is None:
        return None
    return UNLIMITED if found[1] == "unlimited" else int(found[1])


def _figure(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d{{1,20}})\b", text, re.MULTILINE | re.ASCII)
    return int(found[1]) if found else None


def _bytes(text: str, name: str) -> int | None:
    kib = _figure(text, name)
    return None if kib is None else kib * 1024


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say which limit a job would meet; a node's own finding for each."""
    wrong = [
        Finding("limits", component, Severity.WARNING, Fault.CONFIG, evidence, code)
        for component, code, evidence in _wrong(facts, settings)
    ]
    unread = [one for one in ("memlock", "files", "memory") if facts[one] is None]
    if unread:
        evidence = f"cannot be read: {', '.join(unread)}"
        wrong.append(Finding("limits", "host", Severity.UNKNOWN, Fault.CONFIG, evidence))
    if wrong:
        return wrong
    return [Finding("limits", "host", Severity.OK, Fault.CONFIG, "no limit that a job would meet")]


def _wrong(facts: dict[str, Any], settings: Settings) -> list[tuple[str, str, str]]:
    said = []
    if facts["rdma"] and facts["memlock"] not in (UNLIMITED, None):
        evidence = f"locked memory is limited to {facts['memlock']} bytes: RDMA needs no limit"
        said.append(("memlock", "memlock", evidence))
    if facts["files"] is not None and UNLIMITED < facts["files"] < FILES_MIN:
        said.append(("files", "files", f"{facts['files']} open files, {FILES_MIN} at least"))
    used, most = facts["system_files"]
    if most and used > FILES_SHARE * most:
        said.append(("files", "system-files", f"{used} of the system's {most} files are open"))
    wanted = settings.expected("hugepages")
    if wanted is not None and facts["hugepages"] < wanted:
        said.append(("hugepages", "hugepages", f"{facts['hugepages']} huge pages of {wanted}"))
    memory = settings.expected("memory")
    if memory and facts["memory"] is not None and facts["memory"] < MEMORY_SHARE * memory:
        evidence = f"{facts['memory'] / 1e9:.0f} GB of memory, {memory / 1e9:.0f} GB expected"
        said.append(("memory", "memory", evidence))
    return said


CHECK = Check("limits", Level.PASSIVE, 3.0, probe, judge)
