"""A helper process of the agent, and the line to it: the courier, the replicator.

It runs under the job's interpreter, in a session of its own, carries the node's marker, and dies
with the agent. It hears and says JSON messages over a pair of sockets (`packets.py`).

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from orchestrator.runtime import packets
from orchestrator.runtime.kernel import die_with
from orchestrator.runtime.place import Place
from orchestrator.runtime.spec import AgentSpec

VARIABLE = "HOLDFAST_ATTENDANT_FD"  #: number of the attendant's end of the line
_OURS = ("HOLDFAST_", "TORCHELASTIC_", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


class Attendant:
    """At most one process of one module at a time."""

    def __init__(
        self,
        spec: AgentSpec,
        place: Place,
        selector: selectors.BaseSelector,
        name: str,
        hear: Callable[[Mapping[str, Any] | None], None],
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`name` is a module of the runtime; `hear` is given what it says, None when it dies."""
        self._spec, self._place, self._selector = spec, place, selector
        self._name, self._hear, self._env = name, hear, env or {}
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return None if self._child is None else self._child.pid

    def start(self, first: Mapping[str, Any]) -> None:
        """Start it and say its first message; raises `OSError` if that is impossible."""
        ours, theirs = packets.pair()
        parent = os.getpid()
        try:
            with (self._place.logs / f"{self._name}.log").open("ab") as log:
                self._child = subprocess.Popen(
                    [self._python, "-m", f"orchestrator.runtime.{self._name}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._place.home,
                    env=self._environment(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    preexec_fn=lambda: die_with(parent),
                )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._line = ours
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self.listen())
        self.say(first)

    @property
    def _python(self) -> str:
        first = self._spec.command[0]
        return self._spec.python or (sys.executable if first == "python" else first)

    def _environment(self, line: int) -> dict[str, str]:
        base = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        more = {"PYTHONPATH": str(self._place.site), VARIABLE: str(line)}
        return {**base, **self._env, **self._place.marker, **more}

    def say(self, body: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Say something; one that is gone or stuck is noticed by its end."""
        if self._line is not None:
            with suppress(OSError):
                packets.send(self._line, body, tuple(descriptors))

    def listen(self) -> None:
        """Hear what was said since; never blocks."""
        while self._line is not None:
            try:
                body, descriptors = packets.receive(self._line)
            except BlockingIOError:
                return
            packets.close(descriptors)
            if body is None:
                self.stop()
            self._hear(body)

    def stop(self) -> None:
        """End it, if it runs."""
        child, self._child = self._child, None
        line, self._line = self._line, None
        if line is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(line)
            line.close()
        if child is not None:
            child.kill()
            child.wait()


def line_to_agent() -> tuple[socket.socket, Mapping[str, Any] | None]:
    """Return the attendant's end of the line, and the agent's first message, None if it left."""
    line = socket.socket(fileno=int(os.environ.pop(VARIABLE)))
    line.set_inheritable(False)
    first, _ = packets.receive(line)
    return line, first
