"""The node's own health checks, run by the agent in a process of their own, with a hard limit.

What they print is one finding per line and a coverage record at the end; here it is only bounded
and passed on, the controller judges. A run that hangs, or is cut short, becomes one finding of
severity UNKNOWN: a check that could not run never says OK.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from orchestrator.runtime.kernel import die_with
from orchestrator.runtime.spec import AgentSpec

BYTES_MAX = 64 * 1024  #: of output of one run
FINDINGS_MAX = 200
EVERY_MIN, EVERY_MAX = 0.2, 86_400.0  #: seconds between two runs that may be asked for

STATE = "--state"  #: checks that are told this read there what a listener writes down
LISTENER_EVERY, LISTENER_AGAIN = 2.0, 60.0  #: seconds between looks at it; until another try


class Checkups:
    """Runs the checks every so often and keeps the findings of the last whole run."""

    def __init__(self, spec: AgentSpec, selector: selectors.BaseSelector) -> None:
        """Do nothing if the spec names no checks."""
        self._spec, self._selector = spec, selector
        self._child: subprocess.Popen[bytes] | None = None
        self._out = bytearray()
        self._every = spec.health_every
        self._next_at = 0.0
        self._limit_at = 0.0
        self._listener: subprocess.Popen[bytes] | None = None
        self._listen_at = 0.0
        self.findings: tuple[Mapping[str, Any], ...] = ()

    def pace(self, seconds: Any) -> None:
        """Run so often from now on: the controller says so, by how much fails."""
        plain = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if plain and EVERY_MIN <= seconds <= EVERY_MAX and seconds != self._every:
            self._every = float(seconds)
            self._next_at = min(self._next_at, time.monotonic() + self._every)

    def tend(self, now: float) -> None:
        """Start a run that is due, end one that takes too long. Never blocks."""
        if self._spec.health is None:
            return
        self._keep_listening(now)
        if self._child is None:
            if now >= self._next_at:
                self._start(now)
        elif now >= self._limit_at:
            self._finish(f"no answer within {self._spec.health_limit:g} s")

    def _keep_listening(self, now: float) -> None:
        """Keep a listener of the driver's events beside checks that read what it writes down.

        Exit code 0 of it means that there is nothing to listen to here.
        """
        argv = self._spec.health or ()
        if STATE not in argv or now < self._listen_at:
            return
        if self._listener is not None:
            if self._listener.poll() is None:
                self._listen_at = now + LISTENER_EVERY
                return
            ended, self._listener = self._listener.returncode, None
            self._listen_at = now + LISTENER_AGAIN if ended else float("inf")
            return
        try:
            self._listener = _spawn((*argv, "--listen"), subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError):  # the checks say that they cannot be started
            self._listen_at = now + LISTENER_AGAIN
            return
        self._listen_at = now + LISTENER_EVERY

    def _start(self, now: float) -> None:
        self._next_at = now + self._every
        self._limit_at = now + self._spec.health_limit
        self._out.clear()
        try:
            self._child = _spawn(self._spec.health or (), subprocess.PIPE)
        except (OSError, subprocess.SubprocessError) as error:
            self.findings = (self._unknown(f"cannot be started: {error}"),)
            return
        if self._child.stdout is not None:
            os.set_blocking(self._child.stdout.fileno(), False)
            self._selector.register(self._child.stdout, selectors.EVENT_READ, self._read)

    def _read(self, _events: int) -> None:
        child = self._child
        if child is None or child.stdout is None:
            return
        try:
            data = os.read(child.stdout.fileno(), BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return
        self._out += data
        if len(self._out) > BYTES_MAX:
            self._finish(f"more than {BYTES_MAX} bytes of output")
        elif not data:
            self._finish(None)

    def _finish(self, wrong: str | None) -> None:
        """End the run with all its processes, and read what it said."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdout is not None:
            self._selector.unregister(child.stdout)
            child.stdout.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        _DYING.append(child)
        self._read_out(wrong)

    def _read_out(self, wrong: str | None) -> None:
        bodies = list(_objects(bytes(self._out)))
        whole = any("coverage" in body for body in bodies)
        found = [body for body in bodies if "check" in body][:FINDINGS_MAX]
        if wrong is None and not whole:
            wrong = "its output was cut short"
        if wrong is not None:
            found = [*found[: FINDINGS_MAX - 1], self._unknown(wrong)]
        self.findings = tuple(found)

    def _unknown(self, why: str) -> dict[str, Any]:
        return {
            "version": 1,
            "check": "healthchecks",
            "component": "host",
            "severity": "UNKNOWN",
            "class": "application",
            "evidence": f"the health checks gave no whole answer: {why}"[:400],
            "channel": "node",
            "observed_at": time.time(),
            "boot_id": self._spec.boot_id,
        }

    def close(self) -> None:
        """End a run that is under way, and the listener."""
        self._finish("the agent ends")
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.kill()
            _DYING.append(listener)


def _spawn(argv: Sequence[str], out: int) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: die_with(parent),
    )


_DYING: list[subprocess.Popen[bytes]] = []


def bury() -> int:
    """Reap runs that were killed; return how many are not gone yet (state D)."""
    _DYING[:] = [child for child in _DYING if child.poll() is None]
    return len(_DYING)


def _objects(out: bytes) -> Any:
    for line in out.decode(errors="replace").splitlines():
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(body, dict):
            yield body
