"""What else the kernel complains of: lockups, panics, memory, disks, mounts, PCIe, network cards.

The GPU's own errors are in `xid` and `sxid`. A server that did not answer and then says OK is well;
harmless floods (ACCESS_REG of a restricted mlx5, corrected PCIe errors) are no findings.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from healthchecks import kernel_log
from healthchecks.api import Check, Level, Settings
from healthchecks.findings import GRAVITY, Fault, Finding, Severity

SAID_MAX = 2000  #: lines of note that are kept, the newest
LOCKUPS_MAX = 1  #: soft lockups that are only a warning


class Sign(NamedTuple):
    """One sort of complaint."""

    component: str
    code: str
    severity: Severity
    fault: Fault
    remedy: str
    pattern: re.Pattern[str]


def _sign(component: str, code: str, how: str, remedy: str, pattern: str) -> Sign:
    severity, fault = how.split("/")
    return Sign(
        component, code, Severity[severity], Fault(fault), remedy, re.compile(pattern, re.I)
    )


#: Sources: Linux messages as gpud, imbue and Azure NHC match them.
SIGNS = (
    _sign("cpu", "panic", "CRITICAL/hardware", "reboot", r"Kernel panic - not syncing"),
    _sign("cpu", "hard-lockup", "CRITICAL/hardware", "reboot", r"hard LOCKUP on cpu"),
    _sign("cpu", "soft-lockup", "WARNING/hardware", "reboot", r"soft lockup - CPU#\d+ stuck"),
    _sign("cpu", "stall", "WARNING/hardware", "reboot", r"rcu\S*:?.{0,40}stalls? on CPU"),
    _sign("cpu", "hung-task", "WARNING/hardware", "", r"blocked for more than \d+ seconds"),
    _sign("cpu", "oops", "CRITICAL/hardware", "reboot", r"BUG: unable to handle|^Oops: "),
    _sign(
        "memory",
        "mce-fatal",
        "CRITICAL/hardware",
        "replace",
        r"Machine Check Exception|Uncorrected hardware memory error|EDAC .{0,60}\b[1-9]\d* UE ",
    ),
    _sign("memory", "mce", "WARNING/hardware", "", r"mce: \[Hardware Error\]: (?:CPU|Machine)"),
    _sign(
        "memory",
        "oom-job",
        "WARNING/application",
        "restart-app",
        r"Memory cgroup out of memory|oom-kill:constraint=CONSTRAINT_MEMCG",
    ),
    _sign("memory", "oom", "WARNING/config", "", r"Out of memory: Kill(?:ed)? process"),
    _sign("files", "file-max", "WARNING/config", "", r"VFS: file-max limit \d+ reached"),
    _sign("disk", "read-only", "CRITICAL/hardware", "replace", r"Remounting filesystem read-only"),
    _sign(
        "disk",
        "lost",
        "CRITICAL/hardware",
        "replace",
        r"Disabling device after reset failure|no available path - failing I/O|"
        r"Disk failure on \S+ detected|failing array",
    ),
    _sign(
        "disk",
        "io-error",
        "WARNING/hardware",
        "replace",
        r"Buffer I/O error on dev|I/O error, dev |I/O error while writing superblock|"
        r"critical medium error",
    ),
    _sign(
        "disk",
        "nvme-timeout",
        "WARNING/hardware",
        "",
        r"nvme\S* .{0,80}timeout, (?:reset|aborting|disable)",
    ),
    _sign("mount", "nfs-lock", "WARNING/network", "", r"nfs\S*: Lock reclaim failed"),
    _sign("mount", "lustre", "WARNING/network", "", r"LustreError: .*(?:evicted|failed: rc)"),
    _sign("mount", "ceph", "WARNING/network", "", r"ceph: mds\d+ (?:hung|reconnect denied)"),
    _sign(
        "pcie",
        "fatal",
        "CRITICAL/hardware",
        "reboot",
        r"PCIe Bus Error: severity=Uncorrect\w* \(Fatal\)",
    ),
    _sign(
        "pcie",
        "non-fatal",
        "WARNING/hardware",
        "",
        r"PCIe Bus Error: severity=Uncorrect\w* \(Non-Fatal\)",
    ),
    _sign(
        "nic",
        "firmware",
        "CRITICAL/hardware",
        "reboot",
        r"mlx5_core .*(?:health poll failed|fatal (?:fw )?error|device's health compromised)",
    ),
    _sign("nic", "slot-power", "WARNING/hardware", "inspect", r"insufficient power on the PCIe sl"),
    _sign("nic", "hot", "WARNING/hardware", "cool", r"Port module event.*High Temperature"),
    _sign("nic", "carrier", "WARNING/network", "", r"(?:ib|en|eth)\w+: .*lost carrier"),
)
_NOT_RESPONDING = re.compile(r"nfs: server (?P<server>\S+) not responding", re.I)
_RESPONDING = re.compile(r"nfs: server (?P<server>\S+) OK", re.I)
_OF_NOTE = re.compile(
    "|".join(f"(?:{one.pattern.pattern})" for one in SIGNS) + r"|nfs: server \S+ (?:not|OK)", re.I
)


def probe(settings: Settings) -> dict[str, Any]:
    """Read what is of note in the kernel's words since its last start."""
    text = kernel_log.read(settings.kernel_log, settings.root)
    lines = text.splitlines()
    said = [one.said for one in kernel_log.of_this_boot(lines) if _OF_NOTE.search(one.said)]
    return {"lines": len(lines), "said": said[-SAID_MAX:]}


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say for each part of the node what the gravest complaint about it is."""
    del settings
    found: dict[str, list[Finding]] = {}
    for sign in SIGNS:
        lines = [line for line in facts["said"] if sign.pattern.search(line)]
        if lines:
            found.setdefault(sign.component, []).append(_finding(sign, lines))
    for server in _silent(facts["said"]):
        evidence = f"NFS server {server} does not respond"
        silent = Finding("kernel", "mount", Severity.WARNING, Fault.NETWORK, evidence, "nfs")
        found.setdefault("mount", []).append(silent)
    if not found:
        evidence = f"nothing of note in {facts['lines']} lines of the kernel log"
        return [Finding("kernel", "host", Severity.OK, Fault.HARDWARE, evidence)]
    return [max(one, key=lambda each: GRAVITY.index(each.severity)) for one in found.values()]


def _finding(sign: Sign, lines: list[str]) -> Finding:
    severity = sign.severity
    if sign.code == "soft-lockup" and len(lines) > LOCKUPS_MAX:
        severity = Severity.CRITICAL
    times = f"{len(lines)} times, first: " if len(lines) > 1 else ""
    return Finding(
        "kernel", sign.component, severity, sign.fault, times + lines[0], sign.code, sign.remedy
    )


def _silent(said: list[str]) -> list[str]:
    """Return the NFS servers whose last word was silence."""
    silent: dict[str, None] = {}
    for line in said:
        if found := _NOT_RESPONDING.search(line):
            silent[found["server"].rstrip(",")] = None
        elif found := _RESPONDING.search(line):
            silent.pop(found["server"], None)
    return list(silent)


CHECK = Check("kernel", Level.PASSIVE, 5.0, probe, judge)
