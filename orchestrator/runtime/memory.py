"""Snapshots in memory: one segment per rank, two slots in turn, hashed, owned by the node's agent.

A segment is a memfd that the agent made, so that it outlives the rank and has no name that could be
left behind. A slot holds a head and a body. The head is erased before the body is touched and
written after it was hashed: a rank that dies at any moment leaves the other slot whole.

Hash: xxh3-128 where the rank's environment has `xxhash`, else SHA-256; the head says which.
Standard library else, Python 3.10.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.runtime.ladder import Image

OWN, PARTNER = "own", "partner"  #: whose snapshots a segment holds: this node's, another's
VERSION = 1  #: of the head's format
SLOTS = 2
HEAD_BYTES = 65_536
_MAGIC = b"HFSNAP\x00\x01"
_ALIGN = 4_096
_SEALED = len(_MAGIC) + 4 + 32  #: bytes of a head before its text: magic, length, SHA-256


class TornError(Exception):
    """A slot that does not hold what its head says."""


def segment_bytes(body_max: int) -> int:
    """Return the size of a segment whose bodies have at most `body_max` bytes."""
    return SLOTS * _slot_bytes(body_max)


def _slot_bytes(body_max: int) -> int:
    return HEAD_BYTES + -(-body_max // _ALIGN) * _ALIGN


def hasher(name: str | None = None) -> tuple[str, Any]:
    """Return (name, a new hasher): the named one, or the fastest there is here.

    Raises `TornError` for a name that cannot be computed here.
    """
    if name in (None, "xxh3-128"):
        try:
            return "xxh3-128", importlib.import_module("xxhash").xxh3_128()
        except ImportError:
            if name is not None:
                raise TornError("hashed with xxh3-128, and there is no xxhash here") from None
    if name in (None, "sha256"):
        return "sha256", hashlib.sha256()
    raise TornError(f"hashed with {str(name)[:20]!r}")


@dataclass(frozen=True)
class Head:
    """What a slot says of its body."""

    run: str  #: JOB.ATTEMPT
    generation: int
    step: int
    tree_bytes: int  #: of the pickled tree, at the end of the body
    bytes: int  #: of the whole body
    hash: str
    digest: str  #: of the whole body, hex
    attestation: Mapping[str, Any]

    @property
    def image(self) -> Image:
        """Which state it is."""
        return Image(self.generation, self.step)


def verify(head: Head, body: memoryview) -> None:
    """Raise `TornError` unless a body is what its head says."""
    _, sum_ = hasher(head.hash)
    sum_.update(body)
    if len(body) != head.bytes or sum_.hexdigest() != head.digest:
        raise TornError(f"step {head.step} has other bytes than were hashed")


def decode_head(body: Any) -> Head:
    """Read a head; raises `TornError` if it is not one. A peer or a torn page may say anything."""
    try:
        fields = dict(body)
        if fields.pop("version") != VERSION:
            raise TornError("a head of another version")
        head = Head(**fields)
        numbers = (head.generation, head.step, head.tree_bytes, head.bytes)
        texts = (head.run, head.hash, head.digest)
        if any(type(one) is not int or one < 0 for one in numbers) or not all(
            isinstance(one, str) for one in texts
        ):
            raise TornError("a head with other types")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TornError(f"not a head: {error!r}") from error
    if not (isinstance(head.attestation, dict) and head.tree_bytes <= head.bytes):
        raise TornError("a head that contradicts itself")
    return head


def encode_head(head: Head) -> dict[str, Any]:
    """Return a head as plain JSON types."""
    return {"version": VERSION, **asdict(head)}


class Segment:
    """A mapped segment: written by one rank, read by any rank of its node."""

    def __init__(self, descriptor: int, *, populate: bool = False) -> None:
        """Map it whole; takes over the descriptor. `populate` puts its pages in place now."""
        size = os.fstat(descriptor).st_size
        flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if populate else 0)
        try:
            self._map = mmap.mmap(descriptor, size, flags=flags)
        finally:
            os.close(descriptor)
        self.bytes = size
        self._slot = size // SLOTS
        self.body_max = self._slot - HEAD_BYTES

    @property
    def address(self) -> int:
        """Where it is mapped in this process."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def heads(self) -> dict[int, Head]:
        """Return the readable heads by slot; bodies are not looked at."""
        found = {}
        for slot in range(SLOTS):
            head = self._head(slot)
            if head is not None:
                found[slot] = head
        return found

    def stamp(self) -> tuple[bytes, ...]:
        """Return what changes whenever a slot is erased or published; much cheaper than `heads`."""
        return tuple(self._map[s * self._slot : s * self._slot + _SEALED] for s in range(SLOTS))

    def _head(self, slot: int) -> Head | None:
        raw = self._map[slot * self._slot : slot * self._slot + HEAD_BYTES]
        if raw[: len(_MAGIC)] != _MAGIC:
            return None
        start = _SEALED
        length = int.from_bytes(raw[len(_MAGIC) : len(_MAGIC) + 4], "little")
        data = raw[start : start + length]
        if hashlib.sha256(data).digest() != raw[len(_MAGIC) + 4 : start]:
            return None
        try:
            head = decode_head(json.loads(data))
        except (ValueError, TornError):
            return None
        return head if head.bytes <= self.body_max else None

    def body(self, slot: int) -> memoryview:
        """Return a slot's body, as large as it may be."""
        start = slot * self._slot + HEAD_BYTES
        return memoryview(self._map)[start : start + self.body_max]

    def read(self, slot: int) -> tuple[Head, memoryview]:
        """Return a verified head and body; raises `TornError` otherwise."""
        head = self._head(slot)
        if head is None:
            raise TornError("no whole head")
        body = self.body(slot)[: head.bytes]
        verify(head, body)
        return head, body

    def spare_slot(self) -> int:
        """Return the slot to write next: an empty one, else the older one."""
        heads = self.heads()
        return min(range(SLOTS), key=lambda s: (s in heads, heads[s].image if s in heads else s))

    def erase(self, slot: int) -> None:
        """Make a slot hold nothing; before its body is touched."""
        self._map[slot * self._slot : slot * self._slot + len(_MAGIC)] = bytes(len(_MAGIC))

    def publish(self, slot: int, head: Head) -> None:
        """Write a slot's head; its body is whole."""
        data = json.dumps(encode_head(head)).encode()
        seal = len(data).to_bytes(4, "little") + hashlib.sha256(data).digest()
        start = slot * self._slot
        if len(_MAGIC) + len(seal) + len(data) > HEAD_BYTES:
            raise TornError("the head is too large")
        at = start + len(_MAGIC)
        self._map[at : at + len(seal) + len(data)] = seal + data
        self._map[start : start + len(_MAGIC)] = _MAGIC

    def close(self) -> None:
        """Unmap it, unless a view of it is still held."""
        try:
            self._map.close()
        except BufferError:
            return
