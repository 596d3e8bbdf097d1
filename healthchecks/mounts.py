"""Shared file systems: whether each answers within its time, each asked in a process of its own.

A `stat` on a dead server blocks for ever and cannot be killed; the child that asks is then left
behind. If several nodes say so at once it is the server and not the node: the class is network.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

KINDS = ("nfs", "nfs4", "lustre", "ceph", "beegfs", "gpfs", "wekafs", "glusterfs", "cifs", "9p")
ANSWER_MAX = 3.0  #: seconds
MOUNTS_MAX = 64
STALE = {errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN, errno.EHOSTDOWN}


def probe(settings: Settings) -> dict[str, Any]:
    """Ask every shared file system that is mounted for its size."""
    table = Path(settings.root, "proc/self/mounts")
    rows = [line.split() for line in table.read_text().splitlines()]
    shared = [(row[1].replace("\\040", " "), row[2]) for row in rows if _is_shared(row)]
    asked = [(path, kind, *_ask(path)) for path, kind in shared[:MOUNTS_MAX]]
    deadline = time.monotonic() + ANSWER_MAX
    return {
        "mounts": [
            {"path": path, "kind": kind, "errno": _hear(pid, pipe, deadline)}
            for path, kind, pid, pipe in asked
        ]
    }


def _is_shared(row: list[str]) -> bool:
    return len(row) > 3 and (row[2] in KINDS or row[2].startswith("fuse."))


def _ask(path: str) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        os.statvfs(path)
        os.write(writer, b"0")
    except OSError as error:
        os.write(writer, str(error.errno).encode())
    finally:
        os._exit(0)


def _hear(pid: int, pipe: int, deadline: float) -> int | None:
    """Return the errno that the child met, 0 for none; None if it did not answer in time."""
    try:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([pipe], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, os.WNOHANG)  # it may never end: do not wait
            return None
        said = os.read(pipe, 16)
        os.waitpid(pid, 0)
        return int(said or b"5")
    finally:
        os.close(pipe)


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say for each shared file system whether it answers, and which expected one is not there."""
    said = [_one(seen) for seen in facts["mounts"]]
    there = {seen["path"] for seen in facts["mounts"]}
    for path in settings.expected("mounts") or ():
        if path not in there:
            said.append(_finding(path, Severity.CRITICAL, "is not mounted", "missing"))
    if not said:
        evidence = "no shared file system is mounted, and none is known to be expected"
        return [Finding("mounts", "host", Severity.OK, Fault.NETWORK, evidence)]
    return said


def _one(seen: dict[str, Any]) -> Finding:
    path, kind, number = seen["path"], seen["kind"], seen["errno"]
    if number is None:
        return _finding(path, Severity.CRITICAL, f"{kind}: no answer in {ANSWER_MAX:g} s", "hung")
    if number in STALE:
        return _finding(path, Severity.CRITICAL, f"{kind}: {os.strerror(number)}", "stale")
    if number == errno.EACCES:
        return _finding(path, Severity.UNKNOWN, f"{kind}: {os.strerror(number)}")
    if number:
        return _finding(path, Severity.WARNING, f"{kind}: {os.strerror(number)}", "error")
    return _finding(path, Severity.OK, f"{kind}: answers")


def _finding(path: str, severity: Severity, evidence: str, code: str = "") -> Finding:
    return Finding("mounts", path[:60], severity, Fault.NETWORK, evidence, code)


CHECK = Check("mounts", Level.PASSIVE, ANSWER_MAX + 2, probe, judge)
