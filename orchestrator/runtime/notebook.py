"""An agent's notes for the controller, and when the controller last confirmed an answer.

A note is kept until the controller says that the ledger has it. Which *answer* it has follows from
that: the first one that carried the confirmed note, or the one that the request names by its time
(`heard`). The clock of `when_alone` starts there, so that one that hears us but is not heard, or
the other way round, does not count as contact. Standard library only, Python 3.10.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from orchestrator.runtime.reports import NOTES_MAX, TEXT_MAX, Note

KEPT_MAX = 2_000  #: notes that wait for a controller that is away
ANSWERS_MAX = 500  #: answers whose confirmation may still come


class Notebook:
    """The notes of one agent process."""

    def __init__(self) -> None:
        """Begin with note 1."""
        self._notes: deque[Note] = deque(maxlen=KEPT_MAX)
        self._last = 0
        self._first_sent: deque[tuple[int, float]] = deque(maxlen=ANSWERS_MAX)
        self._answers: deque[tuple[float, float]] = deque(maxlen=ANSWERS_MAX)
        self._sent_up_to = 0

    def write(self, kind: str, text: str, data: Mapping[str, Any], at: float | None = None) -> None:
        """Note something; `at` is in epoch seconds, now if not given."""
        self._last += 1
        moment = time.time() if at is None else at
        self._notes.append(Note(self._last, moment, kind, text[:TEXT_MAX], dict(data)))

    def unconfirmed(self) -> tuple[Note, ...]:
        """Return the oldest notes that the controller has not confirmed, as many as fit."""
        return tuple(self._notes)[:NOTES_MAX]

    def answered(self, notes: tuple[Note, ...], report_at: float, now: float) -> None:
        """Remember that an answer with these notes is being sent at `now` (machine's clock)."""
        self._answers.append((report_at, now))
        highest = max((note.number for note in notes), default=0)
        if highest > self._sent_up_to:
            self._first_sent.append((highest, now))
            self._sent_up_to = highest

    def confirm(self, number: int, heard: float | None) -> float | None:
        """Drop the notes up to `number`; return when the confirmed answer was sent, if known.

        A number beyond what was sent belongs to another life of this agent and is ignored.
        """
        found = [now for at, now in self._answers if at == heard]
        if 0 < number <= self._sent_up_to:
            while self._notes and self._notes[0].number <= number:
                self._notes.popleft()
            while self._first_sent and self._first_sent[0][0] <= number:
                found.append(self._first_sent.popleft()[1])
        return max(found, default=None)
