"""Answers and silences of one thing: since when does it not answer? Whatever order they come in.

A silence that began before the last answer is over; one that began after it goes on. Answers may
be learned late (another pool was slow), so the silences of the last `LATENESS` are remembered:
within it any order gives the same belief. Used by `assess` for nodes, agents, providers, registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

LATENESS = timedelta(seconds=15)  #: observations may arrive that much out of order


@dataclass(frozen=True, slots=True)
class Contact:
    """How things stand with one thing that we talk to."""

    ok_at: datetime | None = None  #: last answer
    since: datetime | None = None  #: first failure after it
    error: str = ""  #: of the newest failure
    lately: tuple[datetime, ...] = ()  #: failures within `LATENESS` of the newest, oldest first

    def answered(self, at: datetime) -> Contact:
        """Return the contact after an answer."""
        ok_at = at if self.ok_at is None else max(at, self.ok_at)
        lately = tuple(moment for moment in self.lately if moment > ok_at)
        since = self.since
        if since is not None and since <= ok_at:
            since = lately[0] if lately else None
        return Contact(ok_at, since, self.error if since else "", lately if since else ())

    def failed(self, at: datetime, error: str) -> Contact:
        """Return the contact after a failure; one from before the last answer changes nothing."""
        if self.ok_at is not None and at <= self.ok_at:
            return self
        moments = sorted({*self.lately, at})
        newest = moments[-1]
        if at < newest:
            error = self.error
        elif at in self.lately:
            error = max(error, self.error)
        return Contact(
            ok_at=self.ok_at,
            since=at if self.since is None else min(at, self.since),
            error=error,
            lately=tuple(moment for moment in moments if moment >= newest - LATENESS),
        )
