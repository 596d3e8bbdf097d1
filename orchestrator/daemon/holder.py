"""Who holds the lease: a name from which a later process of the same computer can tell if it lives.

HOST/BOOT/PID/START: another boot, or a process number with another start time, is another life. A
holder on another computer is never called dead: its lease must expire.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def holder() -> str:
    """Return the name of this process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{os.getpid()}/{_started(os.getpid())}"


def _started(pid: int) -> str:
    """Return field 22 of /proc/PID/stat (proc(5)): the process's start, in clock ticks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def is_dead(name: str) -> bool:
    """Say whether the holder of that name is surely dead: it ran here, and runs no more."""
    here = holder().split("/")
    host, boot, pid, started = (name.split("/") + [""] * 4)[:4]
    if host != here[0]:
        return False
    if boot != here[1]:
        return True
    try:
        return _started(int(pid)) != started
    except (OSError, ValueError):
        return True
