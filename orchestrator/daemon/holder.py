"""Who holds the lease: a name from which a later process of the same computer can tell if it lives.

HOST/BOOT/PID/START: another boot, or a process number with another start time, is another life. A
holder on another computer is never called dead: its lease must expire.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from orchestrator.runtime import processes


def holder() -> str:
    """Return the name of this process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{os.getpid()}/{_started(os.getpid())}"


def _started(pid: int) -> str:
    """Return the process's start in clock ticks; nothing if it has ended, be it a zombie still."""
    process = processes.read(pid)
    return "" if process is None or process.dead else str(process.started)


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
    except ValueError:
        return True
