"""A rank's end of its line to the agent: orders to leave and to join, and memory for snapshots.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import TransientError
from orchestrator.runtime import packets

ANSWER_LIMIT = 10.0  #: seconds for the agent to answer


class LineCutError(Exception):
    """The agent is gone; this process is about to be killed."""


class Line:
    """The line of one rank."""

    def __init__(self, line: socket.socket) -> None:
        """Take over an open socket."""
        self._line = line
        line.set_inheritable(False)
        line.setblocking(False)
        self._orders: deque[dict[str, Any]] = deque()
        self._answers: deque[tuple[dict[str, Any], list[int]]] = deque()

    @classmethod
    def from_environment(cls) -> Line | None:
        """Take the end that the agent handed over; None if no agent started this process.

        The variable is removed: no child may believe that the line is its own.
        """
        number = os.environ.pop(packets.VARIABLE, "")
        try:
            return cls(socket.socket(fileno=int(number))) if number else None
        except OSError:  # a launcher in between closed it
            return None

    def say(self, body: Mapping[str, Any]) -> None:
        """Tell the agent something; raises `LineCutError` if it is gone."""
        try:
            self._line.setblocking(True)
            self._line.settimeout(ANSWER_LIMIT)
            packets.send(self._line, body)
        except OSError as error:
            raise LineCutError(str(error)) from error
        finally:
            self._line.setblocking(False)

    def ask(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """Ask for memory; return the answer and its descriptors.

        Raises `TransientError` if there is no answer in time.
        """
        self._answers.clear()
        self.say(body)
        until = time.monotonic() + ANSWER_LIMIT
        while not self._answers:
            if not self._wait(until):
                raise TransientError(f"the agent did not answer within {ANSWER_LIMIT:g} s")
        return self._answers.popleft()

    def order(self, limit_s: float | None = 0.0) -> dict[str, Any] | None:
        """Return the next order, None if none comes within `limit_s` (None: wait for ever)."""
        until = None if limit_s is None else time.monotonic() + limit_s
        self._take()
        while not self._orders:
            if not self._wait(until):
                return None
        return self._orders.popleft()

    def _wait(self, until: float | None) -> bool:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return False
        select.select([self._line], [], [], left)
        self._take()
        return True

    def _take(self) -> None:
        while True:
            try:
                body, descriptors = packets.receive(self._line)
            except BlockingIOError:
                return
            if body is None:
                raise LineCutError("the agent hung up")
            if body.get("do") in ("memory", "segments"):
                self._answers.append((body, descriptors))
            else:
                packets.close(descriptors)
                self._orders.append(body)
