"""The prctl(2) calls that keep a process tree together, and the clock that sleeps with nobody.

They go through ctypes, loaded once at import: nothing may be imported between fork and exec.
Linux only, standard library only, Python 3.10.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

_PDEATHSIG, _CHILD_SUBREAPER, _PTRACER = 1, 36, 0x59616D61
_ANY = ctypes.c_ulong(-1)

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of every orphan below it (PR_SET_CHILD_SUBREAPER)."""
    if _libc.prctl(_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Let the kernel kill this process when the thread that forked it ends; for the forked child.

    `number` is the signal that it gets. The wish survives exec, not fork. A parent that was already
    gone when this was set sends no signal, therefore the second look.
    """
    _libc.prctl(_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(125)


def allow_tracing() -> None:
    """Let py-spy look at this process where Yama restricts ptrace to parents (PR_SET_PTRACER_ANY).

    Yama keeps this per task, across exec. Kernels without Yama refuse it, and need it not.
    """
    _libc.prctl(_PTRACER, _ANY, 0, 0, 0)


def show_environment(env: Mapping[str, str]) -> bool:
    """Let /proc/PID/environ of this process say `env`; False if there is no room for it.

    The kernel shows the memory that exec filled, and a forked child that of its parent: whoever
    looks for ranks would not find them. The C library must not point there any more: call it
    after every variable was set anew. What does not fit is left out as a whole.
    """
    stat = Path("/proc/self/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    start, end = int(fields[47]), int(fields[48])  # env_start, env_end of proc(5)
    data = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    if not start or len(data) > end - start:
        return False
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, data, len(data))
    return True


def boottime() -> float:
    """Return seconds since boot, those of suspend included: a frozen node cannot gain time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
