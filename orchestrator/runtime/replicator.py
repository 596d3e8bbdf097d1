"""The replicator: copies checkpoints to the replicas, beside everything else.

    python -m orchestrator.runtime.replicator

A child of the first member's agent under the job's interpreter, at the lowest priority; the ranks
do not know of it. Each replica has a thread of its own, so that one that does not answer keeps
nobody. What `replication.py` decides is done here, again and again, and told.

Standard library only (boto3 for object storage), Python 3.10.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import HoldfastError
from orchestrator.runtime import packets
from orchestrator.runtime.attendant import line_to_agent
from orchestrator.runtime.replication import ForeignReplicaError, Replication
from orchestrator.runtime.spec import Replicate
from orchestrator.runtime.store import open_store
from orchestrator.runtime.throttle import Throttle
from orchestrator.runtime.vault import open_vault

LOOK_EVERY = 5.0  #: seconds between two looks at the register
RETRY_MAX = 120.0  #: seconds between two tries at a store that does not answer, at most


@dataclass(frozen=True)
class Errand:
    """What the agent wants copied, and where to."""

    checkpoints: str
    register: str
    replicas: tuple[str, ...]
    wishes: Replicate
    spool: Path
    look_every: float = LOOK_EVERY


class Copier(threading.Thread):
    """Keeps one replica up to date."""

    def __init__(self, errand: Errand, replica: str, tell: Any) -> None:
        """`tell(body)` reaches the agent."""
        super().__init__(name=f"copier {replica}", daemon=True)
        self._errand, self._replica, self._tell = errand, replica, tell
        self._pause = errand.look_every
        self._fine_until = time.time() + errand.wishes.rpo

    def run(self) -> None:
        """Look, copy and tell, for ever; not for a replica that is not ours any more."""
        replication: Replication | None = None
        while True:
            try:
                replication = replication or self._open()
                self._look(replication)
                self._pause = self._errand.look_every
            except ForeignReplicaError as error:
                self._say("replica-behind", str(error))
                return
            except (HoldfastError, OSError, ValueError) as error:
                self._log(error)
                self._tell_if_late(f"{type(error).__name__}: {error}")
                self._pause = min(RETRY_MAX, 2 * self._pause)
            time.sleep(self._pause)

    def _open(self) -> Replication:
        errand = self._errand
        return Replication(
            open_vault(errand.checkpoints, errand.register, begun=True),
            open_store(self._replica),
            errand.wishes,
            spool=errand.spool,
            spend=Throttle(errand.wishes.rate).spend,
        )

    def _look(self, replication: Replication) -> None:
        receipt = replication.step()
        if receipt is not None:
            facts = {"step": receipt.step, "seq": receipt.seq, "seconds": receipt.seconds}
            self._say("replicated", "", bytes=receipt.bytes, **facts)
        self._fine_until = replication.fine_until()
        self._tell_if_late("copies take too long, or the budget is too small")

    def _tell_if_late(self, why: str) -> None:
        """Say that the copies lag more than the RPO allows; a store may be silent for a while."""
        late = time.time() - self._fine_until
        if late > 0:
            self._say("replica-behind", f"{late:.0f} s more than the RPO allows: {why}")

    def _log(self, error: Exception) -> None:
        print(f"{time.time():.0f} {self._replica}: {error}", file=sys.stderr, flush=True)

    def _say(self, kind: str, why: str, **facts: Any) -> None:
        self._tell({"say": kind, "replica": self._replica, "why": why, **facts})


def read(order: Mapping[str, Any]) -> Errand:
    """Read the agent's order; it comes from our own side."""
    return Errand(
        checkpoints=order["checkpoints"],
        register=order["register"],
        replicas=tuple(order["replicas"]),
        wishes=Replicate(**order["wishes"]),
        spool=Path(order["spool"]),
        look_every=order.get("look_every", LOOK_EVERY),
    )


def serve(line: socket.socket, errand: Errand) -> None:
    """Copy until the agent hangs up."""
    lock = threading.Lock()

    def tell(body: Mapping[str, Any]) -> None:
        with lock, suppress(OSError):
            packets.send(line, body)

    for replica in errand.replicas:
        Copier(errand, replica, tell).start()
    while True:
        select.select([line], [], [])
        body, descriptors = packets.receive(line)
        packets.close(descriptors)
        if body is None:
            return


def main() -> int:
    """Serve on the line that the agent handed over."""
    os.nice(19)
    line, order = line_to_agent()
    if order is not None:
        serve(line, read(order))
    return 0


if __name__ == "__main__":
    sys.exit(main())
