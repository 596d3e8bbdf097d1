"""The line between a guard and its agent: each sees at once when the other is gone.

A socket pair made by the guard. The agent's end comes by number in HOLDFAST_GUARD_FD; end of file
there means that the guard died. The agent says two things on it, one line each: until when the
guard should leave it alone without hearing again (`when_alone: stop_after`; the guard holds the
deadline too, for an agent that is frozen), and why it is about to end, for the proof.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

VARIABLE = "HOLDFAST_GUARD_FD"
LINE_MAX = 1_000  #: bytes


class Tether:
    """The agent's end."""

    def __init__(self, line: socket.socket) -> None:
        """Take over an open socket."""
        self._line = line
        line.setblocking(False)
        line.set_inheritable(False)

    @classmethod
    def from_environment(cls) -> Tether | None:
        """Take the end that the guard handed over; None if no guard started this process.

        The variable is removed: no child may believe that the line is its own.
        """
        number = os.environ.pop(VARIABLE, "")
        return cls(socket.socket(fileno=int(number))) if number else None

    def fileno(self) -> int:
        """Return the descriptor, for select: readable means that the guard is gone."""
        return self._line.fileno()

    def is_cut(self) -> bool:
        """Say whether the guard is gone. Never blocks."""
        try:
            return self._line.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def hold_until(self, deadline: float | None) -> None:
        """Ask the guard to end everything at `deadline`, in seconds of CLOCK_BOOTTIME; None: never.

        Each call replaces the one before.
        """
        self._say("deadline none" if deadline is None else f"deadline {deadline:.3f}")

    def say_why(self, why: str) -> None:
        """Tell the guard why this agent is about to end, for `gone.json`."""
        self._say("why " + " ".join(why.split()))

    def _say(self, text: str) -> None:
        with suppress(OSError):  # a guard that is gone, or a full line, is seen elsewhere
            self._line.send(text.encode()[: LINE_MAX - 1] + b"\n")


class GuardEnd:
    """The guard's end: what the agent last said."""

    def __init__(self, line: socket.socket) -> None:
        """Take over an open socket."""
        self._line, self._rest = line, b""
        self.deadline: float | None = None
        self.why = ""
        line.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, for select."""
        return self._line.fileno()

    def listen(self) -> bool:
        """Read what was said; False once the agent's end is closed. Never blocks."""
        while True:
            try:
                data = self._line.recv(4_096)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            *lines, rest = (self._rest + data).split(b"\n")
            self._rest = rest[:LINE_MAX]
            for line in lines:
                self._heed(line.decode(errors="replace"))

    def _heed(self, line: str) -> None:
        verb, _, text = line.partition(" ")
        if verb == "why":
            self.why = text
        elif verb == "deadline":
            with suppress(ValueError):
                self.deadline = None if text == "none" else float(text)
