"""Disks: room, inodes, and whether a small file really reaches the disk.

Training stops when a checkpoint or a log cannot be written, and a dying disk often shows first as
a write that fails or hangs. Space is judged by share AND by size: 5 % of 30 TB is plenty, and so is
20 GB on a small machine.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

GB = 1e9
LOW_SHARE, LOW_BYTES = 0.05, 10 * GB
FULL_SHARE, FULL_BYTES = 0.01, 1 * GB
SLOW_WRITE = 2.0  #: seconds for 4 KiB with fsync; a healthy local disk needs milliseconds
_HARDWARE = {errno.EIO, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def probe(settings: Settings) -> dict[str, Any]:
    """Look at the space of each directory, and write a small file there unless told to be fast."""
    return {"disks": [_look(one, write=not settings.fast) for one in settings.disks]}


def _look(path: str, *, write: bool) -> dict[str, Any]:
    try:
        room = os.statvfs(path)
        seen = {
            "path": path,
            "bytes": room.f_blocks * room.f_frsize,
            "free": room.f_bavail * room.f_frsize,
            "inodes": room.f_files,
            "inodes_free": room.f_favail,
        }
        return {**seen, "write_s": _write(path)} if write else seen
    except OSError as error:
        return {"path": path, "errno": error.errno, "error": error.strerror}


def _write(path: str) -> float:
    """Return the seconds that 4 KiB took to reach the disk."""
    name = os.path.join(path, f".holdfast-probe-{os.getpid()}")  # noqa: PTH118 (pathlib is slow)
    began = time.monotonic()
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, bytes(4096))
        os.fsync(fd)
    finally:
        os.close(fd)
        os.unlink(name)  # noqa: PTH108
    return time.monotonic() - began


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say for each directory whether it can take what training writes."""
    del settings
    return [_one(seen) for seen in facts["disks"]]


def _one(seen: dict[str, Any]) -> Finding:
    severity, code, evidence, fault = _verdict(seen)
    return Finding("disk", seen["path"], severity, fault, evidence, code)


def _verdict(seen: dict[str, Any]) -> tuple[Severity, str, str, Fault]:
    if "error" in seen:
        return _failed(seen)
    room = f"{seen['free'] / GB:.1f} GB of {seen['bytes'] / GB:.1f} GB free"
    if _below(seen["free"], seen["bytes"], FULL_SHARE, FULL_BYTES):
        return Severity.CRITICAL, "full", room, Fault.CONFIG
    if _below(seen["inodes_free"], seen["inodes"], FULL_SHARE):
        left = f"{seen['inodes_free']} of {seen['inodes']} inodes free"
        return Severity.CRITICAL, "inodes", left, Fault.CONFIG
    if seen.get("write_s", 0.0) > SLOW_WRITE:
        slow = f"4 KiB with fsync took {seen['write_s']:.1f} s; {room}"
        return Severity.WARNING, "slow", slow, Fault.HARDWARE
    if _below(seen["free"], seen["bytes"], LOW_SHARE, LOW_BYTES):
        return Severity.WARNING, "low", room, Fault.CONFIG
    return Severity.OK, "", room, Fault.HARDWARE


def _failed(seen: dict[str, Any]) -> tuple[Severity, str, str, Fault]:
    if seen["errno"] in _FULL:
        return Severity.CRITICAL, "full", seen["error"], Fault.CONFIG
    if seen["errno"] in _HARDWARE:
        return Severity.CRITICAL, "failed", seen["error"], Fault.HARDWARE
    return Severity.UNKNOWN, "", f"could not look: {seen['error']}", Fault.CONFIG


def _below(free: float, total: float, share: float, amount: float = float("inf")) -> bool:
    """Whether little is left both as a share and as an amount. Some file systems count none."""
    return total > 0 and free < share * total and free < amount


CHECK = Check("disk", Level.PASSIVE, 5.0, probe, judge)
