"""What happened within the last while: for budgets and outcomes in the in-memory ledger.

The same tuple is returned again while nothing came and nothing fell out, so that a snapshot shares
it with the one before, and asking costs nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

T = TypeVar("T")
NEVER = datetime.max.replace(tzinfo=UTC)
FOREVER_AGO = datetime.min.replace(tzinfo=UTC)


class Lately(Generic[T]):
    """Things with their moments; those that are twice as old as asked for are forgotten."""

    def __init__(self, span: timedelta) -> None:
        """Begin with nothing; `span` is how far back `within` goes."""
        self.span = span
        self._things: dict[Hashable, tuple[datetime, T]] = {}
        self._count = 0
        self._shown: tuple[T, ...] = ()
        self._oldest, self._left = NEVER, FOREVER_AGO  #: first shown, last left out

    def put(self, thing: T, at: datetime, key: Hashable = None) -> None:
        """Add a thing; one with the same key takes the place of the one before."""
        if key is None:
            self._count += 1
            self._things[self._count] = (at, thing)
            self._shown, self._oldest = (*self._shown, thing), min(self._oldest, at)
            return
        self._things.pop(key, None)
        self._things[key] = (at, thing)
        self._oldest = FOREVER_AGO  # what is shown may be outdated

    def within(self, now: datetime) -> tuple[T, ...]:
        """Return what happened after `now - span`, in the order in which it was added."""
        cut = now - self.span
        if not self._left <= cut < self._oldest:
            for name in [n for n, (at, _) in self._things.items() if at <= cut - self.span]:
                del self._things[name]
            moments = [at for at, _ in self._things.values()]
            self._oldest = min((at for at in moments if at > cut), default=NEVER)
            self._left = max((at for at in moments if at <= cut), default=FOREVER_AGO)
            self._shown = tuple(thing for at, thing in self._things.values() if at > cut)
        return self._shown
