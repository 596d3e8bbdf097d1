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
    """All segments of one attempt on one node, by local rank."""

    def __init__(self, bytes_max: int | None) -> None:
        """Keep at most so many bytes; None for a quarter of the node's memory."""
        self.bytes_max = _memory_bytes() // SHARE if bytes_max is None else bytes_max
        self._held: dict[int, _Held] = {}

    @property
    def bytes(self) -> int:
        """How much is reserved."""
        return sum(one.bytes for one in self._held.values())

    def answer(self, rank: RankProcess, body: dict[str, Any]) -> bool:
        """Answer a rank's line if it asks for memory; False if it says something else."""
        if body.get("say") == "memory":
            size = body.get("bytes")
            whole = isinstance(size, int) and not isinstance(size, bool) and size > 0
            self._give(rank, size if whole and isinstance(size, int) else 0)
            return True
        if body.get("say") == "segments":
            self._show(rank)
            return True
        return False

    def _give(self, rank: RankProcess, size: int) -> None:
        held = self._held.get(rank.local_rank)
        if held is not None and held.bytes != size:
            self._drop(rank.local_rank)
            held = None
        if held is None:
            refusal = self._objection(size)
            if refusal is None:
                held = _make(f"holdfast-{rank.local_rank}", size)
            if held is None:
                rank.say({"do": "memory", "refused": refusal or "the kernel gives none"})
                return
            self._held[rank.local_rank] = held
        rank.say({"do": "memory"}, (held.descriptor,))

    def _objection(self, size: int) -> str | None:
        if size <= 0:
            return "not a number of bytes"
        if self.bytes + size > self.bytes_max:
            return f"{size} bytes more than {self.bytes} exceed the node's bound {self.bytes_max}"
        return None

    def _show(self, rank: RankProcess) -> None:
        numbers = sorted(self._held)
        descriptors = tuple(self._held[number].descriptor for number in numbers)
        rank.say({"do": "segments", "ranks": numbers}, descriptors)

    def _drop(self, number: int) -> None:
        held = self._held.pop(number, None)
        if held is not None:
            with suppress(OSError):
                os.close(held.descriptor)

    def close(self) -> None:
        """Let all of it go; what ranks have mapped goes with them."""
        for number in tuple(self._held):
            self._drop(number)


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
