"""When each part of a look waits for: the first moment of all, without walking through them.

Used by `parts` alone. A heap whose outdated entries are dropped when they come up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Agenda(Generic[P]):
    """One moment per part, and the first of them."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._moments: dict[P, datetime] = {}
        self._heap: list[tuple[datetime, int, P]] = []
        self._new: list[tuple[datetime, int, P]] = []
        self._count = 0  #: entries ever made; orders those of one moment

    def put(self, part: P, moment: datetime | None) -> None:
        """Let a part wait for this moment, or for none."""
        if moment is None:
            if part in self._moments:
                del self._moments[part]
        elif self._moments.get(part) != moment:
            self._moments[part] = moment
            self._count += 1
            self._new.append((moment, self._count, part))

    def due(self, now: datetime) -> Iterator[P]:
        """Yield each part whose moment has come; it goes on waiting until `put` says otherwise."""
        self._sort()
        found = []
        while self._heap and self._heap[0][0] <= now:
            entry = heappop(self._heap)
            if self._moments.get(entry[2]) == entry[0]:
                found.append(entry)
                yield entry[2]
        self._new += found

    def first(self) -> datetime | None:
        """Return the first moment that any part waits for."""
        self._sort()
        while self._heap:
            moment, _, part = self._heap[0]
            if self._moments.get(part) == moment:
                return moment
            heappop(self._heap)
        return None

    def _sort(self) -> None:
        if len(self._heap) + len(self._new) > 2 * len(self._moments) + 64:
            entries = enumerate(self._moments.items())
            self._heap = [(moment, number, part) for number, (part, moment) in entries]
            self._count, self._new = max(self._count, len(self._heap)), []
            heapify(self._heap)
        elif len(self._new) > len(self._heap) // 8 + 8:
            self._heap += self._new
            self._new = []
            heapify(self._heap)
        for entry in self._new:
            heappush(self._heap, entry)
        self._new = []
