"""What happens when: the queue of coming events, and the only clock of a simulated world."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)  #: second 0 of every simulated world
MINUTE, HOUR, DAY, WEEK = 60.0, 3_600.0, 86_400.0, 604_800.0


def moment(seconds: float) -> datetime:
    """Return a simulated second as a moment."""
    return BEGIN + timedelta(seconds=seconds)


def second(at: datetime) -> float:
    """Return a moment as a simulated second, so that `moment(second(at)) == at`."""
    return (at - BEGIN).total_seconds()


@dataclass(slots=True, order=True)
class Event:
    """One thing that will happen, unless it is cancelled."""

    at: float
    order: int
    act: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Let it not happen."""
        self.cancelled = True


@dataclass(slots=True)
class Agenda:
    """Coming events in the order of their time; of equal times, in the order they were entered."""

    now: float = 0.0  #: seconds since `BEGIN`
    happened: int = 0
    _events: list[Event] = field(default_factory=list)
    _count: int = 0

    def at(self, second: float, act: Callable[[], None]) -> Event:
        """Let something happen at a moment; one that is over means now."""
        self._count += 1
        event = Event(max(second, self.now), self._count, act)
        heapq.heappush(self._events, event)
        return event

    def after(self, seconds: float, act: Callable[[], None]) -> Event:
        """Let something happen so many seconds from now."""
        return self.at(self.now + seconds, act)

    def run(self, until: float) -> None:
        """Let everything happen that comes before `until`, and stop there."""
        while self._events and self._events[0].at <= until:
            event = heapq.heappop(self._events)
            if event.cancelled:
                continue
            self.now = event.at
            self.happened += 1
            event.act()
        self.now = max(self.now, until)
