"""A rank's side of snapshots in memory: its own segment, and what its node holds of others.

Python 3.10; torch is imported by whoever imports this.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import TransientError, UserError
from orchestrator.runtime import snapshots
from orchestrator.runtime.capture import Flat, Snapshotter, rebuild
from orchestrator.runtime.ladder import Image
from orchestrator.runtime.memory import OWN, Head, Segment, TornError, segment_bytes
from orchestrator.runtime.rankline import Line

LOG = logging.getLogger(__name__)
SLACK = 1.25  #: room in a segment for a state that grows (moments are made at the first step)


@dataclass(frozen=True)
class Found:
    """A snapshot in this node's memory, not verified yet."""

    segment: Segment
    slot: int
    kind: str = OWN  #: PARTNER for what another node's agent copied here

    def read(self) -> tuple[Head, Any]:
        """Return its head and state, verified; the tensors are views: copy what is kept.

        Raises `TornError` if it is not what was hashed, or cannot be read as plain data.
        """
        head, body = self.segment.read(self.slot)
        try:
            state = rebuild(body, head.tree_bytes)
        except (snapshots.BadStateError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TornError(f"step {head.step} cannot be read: {error}") from error
        bad = snapshots.find_nan(state)
        if bad is not None:
            raise TornError(f"step {head.step}: {bad} holds NaN")
        return head, state

    def still_holds(self, head: Head) -> bool:
        """Say whether it is still whole: a late copy of another node may have come over it."""
        try:
            again, _ = self.segment.read(self.slot)
        except TornError:
            return False
        return again == head


class RankMemory:
    """Snapshots of one rank; without an agent there are none."""

    def __init__(self, line: Line | None, run: str) -> None:
        """Ask for memory on `line`; `run` is JOB.ATTEMPT."""
        self._line, self._run = line, run
        self._snapshotter: Snapshotter | None = None
        self._copying = False
        self.refused = line is None  #: there is no memory for snapshots

    def begin(self, image: Image, flat: Flat, attestation: Mapping[str, Any]) -> bool:
        """Begin to copy a state; False if there is no memory for it."""
        if self._snapshotter is None or not self._snapshotter.fits(flat):
            self._reserve(flat)
        if self._snapshotter is None:
            return False
        self._copying = self._snapshotter.begin(image, flat, attestation)
        return self._copying

    def settle(self) -> bool:
        """Wait for the copy under way; say whether a whole snapshot came of it."""
        if self._snapshotter is None or not self._copying:
            return False
        self._copying = False
        made = self._snapshotter.settle() is not None
        if not made and self._snapshotter.torn == 1:
            LOG.warning("a snapshot was torn: a tensor changed between two updates")
        return made

    def _reserve(self, flat: Flat) -> None:
        """Get a segment from the agent; its pages are put in place now, not within a step."""
        if self._line is None or self.refused:
            return
        tree = flat.encoded_tree()
        try:
            snapshots.from_bytes(tree)
        except snapshots.BadStateError as error:
            raise UserError(f"steady: the parts hold more than plain data: {error}") from error
        room = int(flat.bytes * SLACK) + 4 * len(tree) + 1_000_000
        if self._snapshotter is not None:
            self._snapshotter.close()
        self._snapshotter = None
        try:
            said, descriptors = self._line.ask({"say": "memory", "bytes": segment_bytes(room)})
        except TransientError as error:
            said, descriptors = {"refused": str(error)}, []
        if not descriptors:
            self.refused = True
            LOG.warning("no snapshots in memory: %s", said.get("refused"))
            return
        self._snapshotter = Snapshotter(Segment(descriptors[0], populate=True), self._run)

    def heads(self, floor: int) -> dict[Image, Found]:
        """Return the snapshots in this node's memory; their bodies are not looked at yet.

        Those of generations below `floor` do not count; of one state one copy is enough.
        """
        found: dict[Image, Found] = {}
        for image, one in self._found(floor):
            found.setdefault(image, one)
        return found

    def _found(self, floor: int) -> Iterator[tuple[Image, Found]]:
        """Yield what there is, the node's own first."""
        if self._line is None:
            return
        try:
            said, descriptors = self._line.ask({"say": "segments"})
        except TransientError as error:
            LOG.warning("snapshots in memory are not used: %s", error)
            return
        kinds = said.get("kinds", [OWN] * len(descriptors))
        for kind, descriptor in sorted(zip(kinds, descriptors, strict=True)):
            segment = Segment(descriptor)
            for slot, head in segment.heads().items():
                if head.run == self._run and head.generation >= floor:
                    yield head.image, Found(segment, slot, kind)
