"""The agent's side of snapshots in memory: it makes the segments, bounds them, and hands them out.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.runtime.memory import OWN, PARTNER
from orchestrator.runtime.rankprocess import RankProcess

SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
SHARE = 4  #: without a declared bound, one part in so many of the node's memory


@dataclass(frozen=True)
class Held:
    """A segment that exists as long as its descriptor is open somewhere."""

    descriptor: int
    bytes: int
    number: int  #: another segment has another


class MemoryKeeper:
    """The segments of an attempt on a node, within one bound.

    One of its own (a replicated state needs no more), and one of copies for a partner. What this
    node's ranks need comes first: copies for others give way to it.
    """

    def __init__(self, bytes_max: int | None) -> None:
        """Reserve at most so many bytes; None for a quarter of the node's memory."""
        self.bytes_max = _memory_bytes() // SHARE if bytes_max is None else bytes_max
        self._held: dict[str, Held] = {}
        self._made = 0
        self.aside = 0  #: bytes that the courier may take to copy a snapshot aside

    @property
    def bytes(self) -> int:
        """How much is reserved."""
        return self.aside + sum(held.bytes for held in self._held.values())

    @property
    def left(self) -> int:
        """How much may still be reserved."""
        return max(0, self.bytes_max - self.bytes)

    def held(self, kind: str) -> Held | None:
        """Return the segment of a kind, if there is one."""
        return self._held.get(kind)

    def answer(self, rank: RankProcess, body: dict[str, Any]) -> bool:
        """Answer a rank's line if it asks for memory; False if it says something else.

        "memory" reserves; a larger segment replaces a smaller one, and what was in it is gone.
        Ranks write in turn, by their own rule: local rank 0, or who hands its live state to it.
        """
        if body.get("say") == "memory":
            refusal = self.reserve(OWN, body.get("bytes"))
            held = self._held.get(OWN)
            if refusal is None and held is not None:
                rank.say({"do": "memory"}, (held.descriptor,))
            else:
                rank.say({"do": "memory", "refused": refusal})
            return True
        if body.get("say") == "segments":
            kinds = sorted(self._held)
            descriptors = tuple(self._held[kind].descriptor for kind in kinds)
            rank.say({"do": "segments", "kinds": kinds}, descriptors)
            return True
        return False

    def reserve(self, kind: str, size: object) -> str | None:
        """Make a segment of at least `size` bytes, unless there is one; say why if it cannot be."""
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
            return "not a number of bytes"
        held = self._held.get(kind)
        if held is not None and held.bytes >= size:
            return None
        if size > self.bytes_max:
            return f"{size} bytes exceed the node's bound of {self.bytes_max}"
        self.drop(kind)
        if kind == OWN and size > self.left:
            self.drop(PARTNER)
            self.aside = 0
        if size > self.left:
            return f"{size} bytes exceed what is left of the node's bound: {self.left}"
        self._made += 1
        made = _make(f"holdfast-{kind}", size, self._made)
        if made is None:
            return "the kernel gives none"
        self._held[kind] = made
        return None

    def drop(self, kind: str) -> None:
        """Let a segment go; its memory is free once nobody has it mapped."""
        held = self._held.pop(kind, None)
        if held is not None:
            with suppress(OSError):
                os.close(held.descriptor)

    def close(self) -> None:
        """Let all go; what ranks have mapped goes with them."""
        for kind in tuple(self._held):
            self.drop(kind)


def _make(name: str, size: int, number: int) -> Held | None:
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
    return Held(descriptor, size, number)


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
