"""Work that may block, done beside the agent's loop: the register's I/O and the store process.

Each `Bench` is one thread that does one chore after the other, each within a limit. A store that
hangs costs that thread, never a ping: when the limit has passed the chore counts as failed, the
next ones fail at once while the thread still hangs, and what it brings in the end is delivered all
the same. A chore whose limit passed before it was begun is not begun any more.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.errors import HoldfastError
from orchestrator.runtime import turns as t
from orchestrator.runtime.kernel import boottime
from orchestrator.runtime.lineage import Generation, Lineage
from orchestrator.runtime.register import Overtaken, Register, new_nonce

REGISTER_LIMIT = 5.0  #: seconds for one look or one record

Chore = Callable[[], t.Given]


@dataclass(frozen=True)
class Delivery:
    """What a chore brought, and whether its limit had passed by then."""

    given: t.Given
    late: bool
    began_at: float  #: on the machine's clock


@dataclass
class _Running:
    chore: Chore
    began_at: float
    failure: Callable[[str], t.Given]
    given_up: bool = False


class Bench:
    """One thread for one kind of chores. It lives as long as the process."""

    def __init__(self, name: str, wake: socket.socket, limit: float) -> None:
        """Write a byte to `wake` whenever something was delivered."""
        self._name, self._wake, self._limit = name, wake, limit
        self._todo: queue.SimpleQueue[_Running] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[_Running, t.Given]] = queue.SimpleQueue()
        self._pending: deque[_Running] = deque()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a chore is under way."""
        return bool(self._pending)

    def give(self, chore: Chore, failure: Callable[[str], t.Given]) -> t.Given | None:
        """Begin a chore; `failure` makes what is told if it takes too long.

        Returns that at once if an earlier chore still hangs.
        """
        if self._pending and self._pending[0].given_up:
            return failure(f"{self._name}: an earlier call has not returned yet")
        running = _Running(chore, boottime(), failure)
        self._pending.append(running)
        self._todo.put(running)
        return None

    def collect(self) -> list[Delivery]:
        """Return what was delivered since the last call, and the failure of what takes too long."""
        found = []
        while not self._done.empty():
            running, given = self._done.get()
            self._pending.popleft()
            found.append(Delivery(given, running.given_up, running.began_at))
        for running in self._pending:
            if not running.given_up and boottime() > running.began_at + self._limit:
                running.given_up = True
                failure = running.failure(f"{self._name}: no answer within {self._limit:g} s")
                found.append(Delivery(failure, late=False, began_at=running.began_at))
        return found

    def _work(self) -> None:
        while True:
            running = self._todo.get()
            self._done.put((running, self._try(running)))
            try:
                self._wake.send(b"!")
            except OSError:  # the loop has enough to wake up for, or is gone
                continue

    @staticmethod
    def _try(running: _Running) -> t.Given:
        if running.given_up:
            return running.failure("given up before it was begun")
        try:
            return running.chore()
        except (HoldfastError, OSError, ValueError) as error:
            return running.failure(str(error))


def look(register: Register) -> t.Given:
    """Read the register."""
    began_at = boottime()
    return t.Read(register.read(), began_at)


def append(register: Register, draft: Generation, lineage: Lineage) -> t.Given:
    """Create a generation's record."""

    def make(seq: int) -> Generation:
        return replace(draft, seq=seq, nonce=draft.nonce or new_nonce(), at=time.time())

    outcome = register.append(make, lineage)
    if isinstance(outcome, Overtaken):
        return t.Overtaken(outcome.lineage)
    return t.Appended(lineage.then(outcome))


def fed(delivery: Delivery) -> t.Given | None:
    """Return what to tell the machine; what came too late is plain knowledge of the register.

    The machine was told that it failed and has drawn its conclusions since.
    """
    given = delivery.given
    if not delivery.late:
        return given
    if isinstance(given, (t.Appended, t.Overtaken)):
        return t.Read(given.lineage, delivery.began_at)
    return given if isinstance(given, t.Read) else None
