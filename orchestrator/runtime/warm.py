"""The agent's handle on its warm parent (`zygote.py`), and on the ranks that it forks.

A job's command can be forked if it is `[python, script.py, ...]` or `[python, -m, module, ...]`;
anything else starts cold, and so does everything once the warm parent has refused or died too
often. `saying` tells people which, and why.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from orchestrator.runtime import exits, packets
from orchestrator.runtime.kernel import die_with
from orchestrator.runtime.place import Place
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.zygote import VARIABLE

FORK_LIMIT = 2.0  #: seconds for one fork to be told; it takes milliseconds
PRELOAD_LIMIT = 120.0  #: seconds for the imports
ROOM = 16_384  #: bytes by which a rank's environment may be larger than its parent's
DEATHS_MAX = 3  #: warm parents that may die before ranks start cold for good


class Warmth(Enum):
    """What a start would be like now."""

    OFF = "off"  #: nothing to preload was named
    PREPARING = "preparing"
    WARM = "warm"
    COLD = "cold"  #: it was wanted, and cannot be


class WarmChild:
    """A rank that the warm parent forked; used like a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        """Hold on to this life of `pid`, in case its number is given away."""
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor: int | None = None
        with suppress(OSError):  # it has ended and was reaped: the parent is about to say how
            self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, if it runs."""
        if self._descriptor is not None and self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def end(self, code: int) -> None:
        """Note how it ended."""
        if self.returncode is None:
            self.returncode = code
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def over(self) -> bool:
        """Whether the kernel says that it ended, told or not."""
        if self._descriptor is None:
            return True
        return bool(select.select([self._descriptor], [], [], 0)[0])


class WarmParent:
    """One node's warm parent; made anew if it dies."""

    def __init__(self, spec: AgentSpec, place: Place) -> None:
        """Nothing is started yet."""
        self._spec, self._place = spec, place
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._children: dict[int, WarmChild] = {}
        self._orphans: list[WarmChild] = []  #: of a warm parent that died
        self._born: dict[int, int] = {}  #: pid by number of the order
        self._early: dict[int, int] = {}  #: code by pid of those that ended before they were known
        self._orders = 0
        self._deaths = 0
        self._importing = ""
        self._began_at = 0.0
        reason = _objection(spec)
        self.warmth = Warmth.OFF if not spec.preload else Warmth.COLD
        self.reason = reason or "not started yet"
        self._able = bool(spec.preload) and reason is None

    @property
    def saying(self) -> str:
        """Say for people how ranks start: "warm: torch", "cold: WHY", or ""."""
        if self.warmth is Warmth.OFF:
            return ""
        what = ", ".join(self._spec.preload) if self.warmth is not Warmth.COLD else self.reason
        return f"{self.warmth.value}: {what}"

    @property
    def pid(self) -> int | None:
        """The warm parent's pid."""
        return None if self._child is None else self._child.pid

    def fileno(self) -> int | None:
        """Return the descriptor of its line, for select."""
        return None if self._line is None else self._line.fileno()

    def prepare(self) -> None:
        """Start it if it should run and does not. Call it from the main thread; returns at once."""
        if not self._able or self._child is not None:
            return
        ours, theirs = packets.pair()
        try:
            self._child = self._popen(theirs)
        except OSError as error:
            self._refuse(f"{_interpreter(self._spec)} cannot be started: {error}")
            ours.close()
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._line, self._began_at = ours, time.monotonic()
        self.warmth, self._importing = Warmth.PREPARING, ""
        asked = {
            "preload": list(self._spec.preload),
            "argv": list(self._spec.command[1:]),
            "workdir": self._spec.workdir,
        }
        packets.send(ours, asked)

    def _popen(self, line: socket.socket) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        with (self._place.logs / "warm.log").open("ab") as log:
            return subprocess.Popen(
                [_interpreter(self._spec), "-m", "orchestrator.runtime.zygote"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._place.home,
                env=self._environment(line.fileno()),
                pass_fds=(line.fileno(),),
                start_new_session=True,
                preexec_fn=lambda: die_with(parent),
            )

    def _environment(self, line: int) -> dict[str, str]:
        ours = ("HOLDFAST_", "TORCHELASTIC_", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
        base = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        base.update(self._spec.env)
        path = [str(self._place.site), *filter(None, [self._spec.env.get("PYTHONPATH")])]
        return {
            **base,
            **self._place.marker,
            "PYTHONPATH": ":".join(path),
            "PYTHONUNBUFFERED": base.get("PYTHONUNBUFFERED", "1"),
            "OMP_NUM_THREADS": "1",
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # or asking for GPUs would initialise CUDA
            VARIABLE: str(line),
            "HOLDFAST_ROOM": "." * ROOM,
        }

    # ---- listening -------------------------------------------------------------------------------

    def look(self) -> None:
        """Hear what it says; notice its end, and imports that take too long. Never blocks."""
        self._listen()
        late = time.monotonic() - self._began_at > PRELOAD_LIMIT
        if self.warmth is Warmth.PREPARING and late:
            self._refuse(f"importing {self._importing} took more than {PRELOAD_LIMIT:g} s")
            self.stop()
        for child in self._orphans:  # nobody is left to tell how they ended: with their parent
            if child.over:
                child.end(-signal.SIGKILL)
        self._orphans = [child for child in self._orphans if child.returncode is None]

    def _listen(self) -> None:
        while self._line is not None:
            try:
                body, descriptors = packets.receive(self._line)
            except BlockingIOError:
                return
            packets.close(descriptors)
            if body is None:
                self._lose()
            else:
                self._hear(body)

    def _hear(self, body: Mapping[str, Any]) -> None:
        if "importing" in body:
            self._importing = str(body["importing"])
        elif "warm" in body:
            self.warmth = Warmth.WARM
        elif "cold" in body:
            self._refuse(str(body["cold"])[:500])
        elif "forked" in body:
            self._born[int(body["forked"])] = int(body["pid"])
        elif "ended" in body:
            self._bury(int(body["ended"]), int(body["code"]))

    def _bury(self, pid: int, code: int) -> None:
        child = self._children.pop(pid, None)
        if child is None:
            self._early[pid] = code
        else:
            child.end(code)

    def _refuse(self, reason: str) -> None:
        self._able, self.warmth, self.reason = False, Warmth.COLD, reason

    def _lose(self) -> None:
        """See it gone: its children die with it. It is started anew, a few times."""
        preparing = self.warmth is Warmth.PREPARING
        self.stop()
        if not self._able:
            return
        self._deaths += 1
        last = exits.last_line(self._place.logs / "warm.log")
        if preparing:
            self._refuse(f"importing {self._importing} ended the warm parent: {last}")
        elif self._deaths >= DEATHS_MAX:
            self._refuse(f"the warm parent died {self._deaths} times: {last}")
        else:
            self.warmth, self.reason = Warmth.COLD, "the warm parent died; another is made"

    # ---- forking ---------------------------------------------------------------------------------

    def fork(self, env: Mapping[str, str], log: str, control: int | None) -> WarmChild | None:
        """Fork one rank; None if it cannot be done, and then it must be started cold.

        `control` is the rank's end of its line. Takes milliseconds, `FORK_LIMIT` at most.
        """
        self._listen()
        if self.warmth is not Warmth.WARM or self._line is None:
            return None
        self._orders += 1
        order = {
            "number": self._orders,
            "env": dict(env),
            "log": log,
            "argv": list(self._spec.command[1:]),
            "workdir": self._spec.workdir,
        }
        try:
            packets.send(self._line, {"fork": True, **order}, () if control is None else (control,))
        except OSError:  # its environment is too large for a packet, or it is gone
            return None
        pid = self._await_birth(self._orders)
        if pid is None:
            self._refuse(f"the warm parent did not fork within {FORK_LIMIT:g} s")
            self.stop()
            return None
        child = WarmChild(pid)
        self._children[pid] = child
        if pid in self._early:
            self._bury(pid, self._early.pop(pid))
        return child

    def _await_birth(self, number: int) -> int | None:
        until = time.monotonic() + FORK_LIMIT
        while self._line is not None and number not in self._born:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._line], [], [], left)[0]:
                return None
            self._listen()
        return self._born.pop(number, None)

    def stop(self) -> None:
        """End it, and with it every rank that it forked."""
        child, self._child = self._child, None
        line, self._line = self._line, None
        self._orphans += self._children.values()
        self._children.clear()
        if line is not None:
            line.close()
        if child is not None:
            child.kill()
            child.wait()


def _interpreter(spec: AgentSpec) -> str:
    first = spec.command[0]
    return spec.python or sys.executable if first == "python" else first


def _objection(spec: AgentSpec) -> str | None:
    """Say why this command cannot be forked; None if it can."""
    if spec.launch != "ranks":
        return "launch: command starts one opaque process per node"
    first, *rest = spec.command
    if not Path(first).name.startswith("python"):
        return f"the command is {Path(first).name}, not python"
    if rest and rest[0] == "-m" and len(rest) > 1:
        return None
    if not rest or rest[0].startswith("-"):
        return "only [python, script.py, ...] and [python, -m, module, ...] can be forked"
    return None
