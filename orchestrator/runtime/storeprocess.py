"""The store process: holds each generation's torch TCPStore, so that no rank and no agent must.

A child of the leading agent under the job's interpreter, started early and kept ready with torch
imported, because importing it takes seconds and a repair should not. For each generation it drops
the old store and makes a new one on a free port. Run as a program it is that child: it reads one
line per store wanted, and answers with the port.

The parent's side is standard library only; torch is imported by the child alone. Python 3.10.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from orchestrator.runtime.kernel import die_with

WANTED = b"fresh\n"
BACKLOG = 1024  #: ranks that may connect at once


class StoreProcess:
    """The agent's handle on its store process."""

    def __init__(self, python: str | None, host: str) -> None:
        """Serve stores on `host`, under `python` (None: the agent's own interpreter)."""
        self._python, self._host = python or sys.executable, host
        self._child: subprocess.Popen[bytes] | None = None
        self._heard = b""
        self._owed = 0  #: answers to requests that were given up

    @property
    def pid(self) -> int | None:
        """The child's pid, if there is a child."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the child, if it does not run already; returns at once.

        An interpreter that is not there or has no torch is noticed by `fresh`, which returns None:
        then rank 0 holds the store, as without an agent.
        """
        if self._child is not None and self._child.poll() is None:
            return
        self.stop()
        parent = os.getpid()
        with suppress(OSError):
            self._child = subprocess.Popen(
                [self._python, "-m", "orchestrator.runtime.storeprocess", self._host],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                preexec_fn=lambda: die_with(parent),
            )

    def fresh(self, timeout: float) -> int | None:
        """Return the port of a new store, empty and listening; None if there is none in time.

        The store before it is closed. Never takes longer than `timeout` seconds.
        """
        until = time.monotonic() + timeout
        self.start()
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            return None
        try:
            child.stdin.write(WANTED)
            child.stdin.flush()
        except OSError:
            return None
        self._owed += 1
        return self._answer(child.stdout.fileno(), until)

    def _answer(self, out: int, until: float) -> int | None:
        """Read lines until the last one owed; an answer that came too late is not this one's."""
        while True:
            line, newline, rest = self._heard.partition(b"\n")
            if newline:
                self._heard = rest
                self._owed -= 1
                if self._owed == 0:
                    return int(line) or None if line.isdigit() else None
                continue
            left = until - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                return None
            data = os.read(out, 4_096)
            if not data:
                return None
            self._heard += data

    def stop(self) -> None:
        """End the child and its store."""
        child, self._child = self._child, None
        self._heard, self._owed = b"", 0
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _serve(host: str) -> None:
    """Be the child: one store at a time, for as long as the parent holds the line."""
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library's print must not be an answer
    dist: Any = importlib.import_module("torch.distributed")

    store: Any = None
    for _ in sys.stdin:
        del store  # its port is closed before the next is opened
        try:
            store = _open(dist, host)
        except (RuntimeError, OSError) as error:
            print(f"store process: {error}", file=sys.stderr, flush=True)
            store = None
        os.write(out, f"{0 if store is None else store.port}\n".encode())


def _open(dist: Any, host: str) -> Any:
    """Open a store that listens on `host` alone: by itself torch listens on every interface.

    The listening socket is ours, and becomes the store's (torch 2.13 closes it with the store).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, backlog=BACKLOG)
    port = listener.getsockname()[1]
    return dist.TCPStore(
        host, port, None, True, wait_for_workers=False, master_listen_fd=listener.detach()
    )


if __name__ == "__main__":
    _serve(sys.argv[1])
