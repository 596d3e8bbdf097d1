"""Where a silent process stands: py-spy's dump, or what /proc says, with the reason why no more.

A stack helps people to understand; nothing is ever decided by it. The dump is taken by a process of
its own, with a limit, without stopping the rank: a rank that hangs in a driver must not take the
agent along.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from orchestrator.runtime.kernel import die_with
from orchestrator.runtime.processes import PROC

LIMIT = 5.0  #: seconds for one dump
TEXT_MAX = 3_500  #: characters that are kept for a note


def find_py_spy() -> str | None:
    """Return py-spy beside this interpreter, or on the PATH; None without one."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")


class Dump:
    """One dump under way."""

    def __init__(self, pid: int, file: Path, now: float) -> None:
        """Begin to dump the stacks of `pid` into `file`; `now` is of a clock that only grows."""
        self.pid, self.file = pid, file
        self._until = now + LIMIT
        self._reason = ""
        self._child = self._start()

    def _start(self) -> subprocess.Popen[bytes] | None:
        program = find_py_spy()
        if program is None:
            self._reason = "py-spy is not installed"
            return None
        parent = os.getpid()
        try:
            with self.file.open("wb") as out:
                return _spawn(
                    [program, "dump", "--nonblocking", "--pid", str(self.pid)], out, parent
                )
        except OSError as error:
            self._reason = f"py-spy cannot be started: {error}"
            return None

    def done(self, now: float) -> bool:
        """Say whether the dump is over, ending it when its limit has passed. Never blocks long."""
        if self._child is None or self._child.poll() is not None:
            return True
        if now < self._until:
            return False
        self._reason = f"py-spy did not end within {LIMIT:g} s"
        self.cancel()
        return True

    def cancel(self) -> None:
        """End the dump, if it is still under way."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def text(self) -> str:
        """Return the stacks, or what /proc says and why there are none; call it when done."""
        said = _read(self.file)
        if self._child is not None and self._child.returncode == 0 and said:
            return said[:TEXT_MAX]
        reason = self._reason or f"py-spy: {said.strip()[-300:] or 'no output'}"
        return f"{reason}\n{from_proc(self.pid)}"[:TEXT_MAX]


def _spawn(argv: list[str], out: IO[bytes], parent: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: die_with(parent),
    )


def from_proc(pid: int) -> str:
    """Return the few lines of /proc/PID that tell what a process waits for.

    Only files that cannot block are read: `cmdline` and `environ` wait for a lock that a process
    in state D may hold.
    """
    wanted = ("Name:", "State:", "Threads:", "SigBlk:", "SigCgt:", "TracerPid:")
    status = _read(PROC / str(pid) / "status").splitlines()
    lines = [line for line in status if line.startswith(wanted)]
    wchan = _read(PROC / str(pid) / "wchan") or "unknown"
    return "\n".join([*lines, f"wchan:\t{wchan}"])


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
