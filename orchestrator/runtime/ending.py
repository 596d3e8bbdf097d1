"""The end of a generation on one node: stacks, SIGTERM, a grace, SIGKILL, and the proof.

Nothing here waits for cooperation: each stage has its limit, and only a sweep that found nothing
twice says that all is gone. It is driven by `step` from the agent's loop and never blocks it for
more than a few milliseconds.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from orchestrator.runtime import cgroup, processes
from orchestrator.runtime.processes import Sweep, Target
from orchestrator.runtime.stacks import Dump

SWEEP_SLICE = 0.03  #: seconds that one step may spend sweeping


class Child(Protocol):
    """A process to be waited for: a `subprocess.Popen`, or what the warm parent forked."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""

    def send_signal(self, sig: int, /) -> None:
        """Signal it, if it runs."""


@dataclass(frozen=True)
class Manner:
    """How a generation is ended."""

    grace: float  #: seconds between SIGTERM and SIGKILL
    groups: bool  #: signal whole process groups (`launch: command`: a shell forwards nothing)


class Ending:
    """One ending under way."""

    def __init__(
        self,
        children: Sequence[Child],
        target: Target,
        manner: Manner,
        dumps: Sequence[Dump] = (),
    ) -> None:
        """Prepare to end `children`, and whatever else `target` finds."""
        self._children, self._manner, self._dumps = children, manner, list(dumps)
        self._sweep = Sweep(target)
        self._kill_at: float | None = None  #: set once SIGTERM was sent
        self.gone = False

    def step(self, now: float) -> bool:
        """Go as far as possible at `now`; say whether nothing is left."""
        if self.gone:
            return True
        self._dumps = [dump for dump in self._dumps if not dump.done(now)]
        if self._dumps:
            return False
        if self._kill_at is None:
            self._ask()
            self._kill_at = now + self._manner.grace
        if self._running() and now < self._kill_at:
            return False
        self.gone = self._sweep.run(SWEEP_SLICE) and not self._running()
        return self.gone

    @property
    def survivors(self) -> str:
        """Name what the last look found, for a message."""
        return processes.describe(self._sweep.left)

    def _running(self) -> list[Child]:
        return [child for child in self._children if child.poll() is None]

    def _ask(self) -> None:
        """Send SIGTERM, but SIGKILL to what is stopped: it could not hear, nor may it wake up."""
        for child in self._running():
            number = signal.SIGKILL if is_stopped(child.pid) else signal.SIGTERM
            if not self._manner.groups:
                child.send_signal(number)
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)


def is_stopped(pid: int) -> bool:
    """Say whether a process was stopped by a signal (T, not t: a debugger's) or is frozen."""
    process = processes.read(pid)
    if process is None or process.dead:
        return False
    return process.state == "T" or cgroup.frozen(pid)
