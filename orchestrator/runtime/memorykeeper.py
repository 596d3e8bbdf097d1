"""The agent's side of snapshots in memory: it makes the segments, bounds them, and hands them out.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.runtime.rankprocess import RankProcess

SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
SHARE = 4  #: without a declared bound, one part in so many of the node's memory


@dataclass
class _Held:
    descriptor: int
    bytes: int


class MemoryKeeper:
    """The one segment of an attempt on a node: a replicated state needs no more."""

    def __init__(self, bytes_max: int | None) -> None:
        """Reserve at most so many bytes; None for a quarter of the node's memory."""
        self.bytes_max = _memory_bytes() // SHARE if bytes_max is None else bytes_max
        self._held: _Held | None = None

    @property
    def bytes(self) -> int:
        """How much is reserved."""
        return 0 if self._held is None else self._held.bytes

    def answer(self, rank: RankProcess, body: dict[str, Any]) -> bool:
        """Answer a rank's line if it asks for memory; False if it says something else.

        "memory" reserves; a larger segment replaces a smaller one, and what was in it is gone.
        Ranks write in turn, by their own rule: local rank 0, or who hands its live state to it.
        """
        if body.get("say") == "memory":
            size = body.get("bytes")
            whole = isinstance(size, int) and not isinstance(size, bool)
            self._give(rank, size if whole and isinstance(size, int) else 0)
            return True
        if body.get("say") == "segments":
            held = self._held
            rank.say({"do": "segments"}, () if held is None else (held.descriptor,))
            return True
        return False

    def _give(self, rank: RankProcess, size: int) -> None:
        refusal = self._objection(size)
        if refusal is None and (self._held is None or self._held.bytes < size):
            self.close()
            self._held = _make("holdfast-snapshots", size)
        if refusal is None and self._held is not None:
            rank.say({"do": "memory"}, (self._held.descriptor,))
        else:
            rank.say({"do": "memory", "refused": refusal or "the kernel gives none"})

    def _objection(self, size: int) -> str | None:
        if size <= 0:
            return "not a number of bytes"
        if size > self.bytes_max:
            return f"{size} bytes exceed the node's bound of {self.bytes_max}"
        return None

    def close(self) -> None:
        """Let it go; what ranks have mapped goes with them."""
        held, self._held = self._held, None
        if held is not None:
            with suppress(OSError):
                os.close(held.descriptor)


def _make(name: str, size: int) -> _Held | None:
    """Make a segment of exactly `size` bytes; its pages come with its first use by the rank."""
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(descriptor)
        return None
    return _Held(descriptor, size)


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
