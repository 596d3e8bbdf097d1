"""An event as accounts read it: what nodes noted is untrusted, and typed here or left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.jobs import Job
from orchestrator.ledger.api import Event

WHOLE_MAX = 10**12  #: no step, generation or sequence number is higher
SECONDS_MAX = 10.0 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Word:
    """One event of one attempt; nothing in it is later than when it was recorded."""

    kind: str
    at: datetime
    attempt: int
    data: Mapping[str, Any]

    def whole(self, name: str) -> int | None:
        """Return a number of the data that is whole and not below zero; None if it is none."""
        value = self.data.get(name)
        known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= WHOLE_MAX
        return value if known and isinstance(value, int) else None

    def lasted(self, name: str) -> timedelta | None:
        """Return a number of seconds that is finite and not below zero; None if it is none."""
        value = _number(self.data.get(name))
        good = value is not None and 0 <= value <= SECONDS_MAX
        return timedelta(seconds=value) if good and value is not None else None

    def moment(self, name: str) -> datetime | None:
        """Return epoch seconds as a moment, not later than the word itself; None if they are none.

        Both are on the node's own clock.
        """
        at = moment(self.data.get(name))
        return None if at is None else min(at, self.at)

    def names(self, name: str) -> frozenset[str]:
        """Return the words of a list; what is none is left out."""
        value = self.data.get(name)
        some = value if isinstance(value, list | tuple) else ()
        return frozenset(one for one in some if isinstance(one, str))


def moment(value: object) -> datetime | None:
    """Return epoch seconds as a moment; None if they are none."""
    seconds = _number(value)
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def word(event: Event, job: Job) -> Word | None:
    """Return an event as a word; None if it is about no attempt of the job."""
    attempt = _attempt(event, job)
    if attempt is None:
        return None
    at = max(event.at, job.submitted_at)
    if event.recorded_at is not None:
        at = min(at, event.recorded_at)
    return Word(event.kind, at, attempt, event.data)


def _attempt(event: Event, job: Job) -> int | None:
    prefix = f"{job.name}/"
    named = (one.removeprefix(prefix) for one in event.subjects if one.startswith(prefix))
    return next((int(one) for one in named if one.isascii() and one.isdigit()), None)


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
