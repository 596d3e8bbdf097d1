"""Python that a model wrote, run where it can do little: bounded in time, memory, files and output.

A child process in a folder of its own, thrown away afterwards; isolated mode, an empty environment,
limits set before the interpreter starts (CPU seconds, address space, file size, open files), the
whole session killed at the end of its time. Where the kernel allows it to this user, the child also
gets namespaces of its own: no network, and whatever left its session dies as well.

This bounds accidents of a model. It is no wall against an attacker with a kernel exploit: run
evaluation of models that you do not trust in a machine of its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache

SECONDS_MAX = 5.0
CPU_SECONDS_MAX = 4
MEMORY_MAX = 512 * 2**20
FILE_MAX = 2**20
OUTPUT_MAX = 4_096  #: bytes of what it printed that are read back
CODE_MAX = 20_000  #: characters
OPEN_FILES_MAX = 32
UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a program."""

    output: str  #: what it printed, errors too, cut to `OUTPUT_MAX`
    ended: str  #: "ok", "exit 1", "signal 9", "time limit" or "refused"


def run(code: str, seconds: float = SECONDS_MAX) -> Ran:
    """Run a program and return what it printed; never raises for what the program does."""
    if len(code) > CODE_MAX:
        return Ran(f"a program of {len(code)} characters; at most {CODE_MAX} are run", "refused")
    with tempfile.TemporaryDirectory(prefix="jail-") as folder:
        return _run(code, folder, seconds)


def _run(code: str, folder: str, seconds: float) -> Ran:
    command = [*(UNSHARE if can_unshare() else ()), sys.executable, "-I", "-S", "-c", code]
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": folder, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_limit,
        )
        try:
            status: int | None = child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(child)
        output.seek(0)
        said = output.read(OUTPUT_MAX).decode("utf-8", "replace")
    return Ran(said, _ending(status))


def _limit() -> None:
    """Run in the child, before the program."""
    limits = {
        resource.RLIMIT_CPU: CPU_SECONDS_MAX,
        resource.RLIMIT_AS: MEMORY_MAX,
        resource.RLIMIT_FSIZE: FILE_MAX,
        resource.RLIMIT_NOFILE: OPEN_FILES_MAX,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in limits.items():
        resource.setrlimit(name, (value, value))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill whatever of the session is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ending(status: int | None) -> str:
    if status is None:
        return "time limit"
    if status == 0:
        return "ok"
    return f"signal {-status}" if status < 0 else f"exit {status}"


@cache
def can_unshare() -> bool:
    """Say whether this user may make namespaces here; tried once."""
    try:
        tried = subprocess.run(
            [*UNSHARE, "true"],
            capture_output=True,
            timeout=10,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0
