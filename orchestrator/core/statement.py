"""Several jobs' books as one statement: what was paid, what it went to, and what was guessed.

Pure; what `holdfast report goodput` shows. *Goodput* is the productive share of what was paid; a
job's ETTR counts its waiting as well, and is no share of money.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.timeline import SECOND, Book, Cause

HOUR = 3_600.0


@dataclass(frozen=True, slots=True)
class Line:
    """What one cause took."""

    cause: Cause
    gpu_seconds: float
    dollars: float
    share: float  #: of all GPU-seconds that were paid for
    guessed: float  #: share of its own GPU-seconds that rests on a guess

    def row(self) -> dict[str, Any]:
        """Return it in plain types; hours are GPU-hours."""
        return {
            "cause": self.cause.value,
            "gpu_hours": round(self.gpu_seconds / HOUR, 4),
            "dollars": round(self.dollars, 2),
            "share": round(self.share, 6),
            "guessed": round(self.guessed, 6),
        }


def lines(books: Iterable[Book]) -> list[Line]:
    """Return a line for each cause, in the order of `Cause`. Their GPU-seconds sum to `paid`."""
    some = list(books)
    paid = sum(book.paid_us for book in some)
    found = []
    for cause in Cause:
        amount = sum(book.gpu_us[cause] for book in some)
        guessed = sum(book.guessed_us[cause] for book in some)
        found.append(
            Line(
                cause,
                amount / SECOND,
                sum(book.dollars[cause] for book in some),
                amount / paid if paid else 0.0,
                guessed / amount if amount else 0.0,
            )
        )
    return found


def total(books: Iterable[Book]) -> dict[str, Any]:
    """Return the sums of some books: what was paid, goodput, and what has no price."""
    some = list(books)
    paid = sum(book.paid_us for book in some)
    good = sum(book.gpu_us[Cause.PRODUCTIVE] for book in some)
    return {
        "gpu_hours": round(paid / SECOND / HOUR, 4),
        "dollars": round(sum(sum(book.dollars.values()) for book in some), 2),
        "goodput": round(good / paid, 6) if paid else None,
        "unpriced_gpu_hours": round(sum(book.unpriced_us for book in some) / SECOND / HOUR, 4),
    }


def by_job(books: Mapping[str, Book]) -> list[dict[str, Any]]:
    """Return a row for each job, with what it lost."""
    rows = []
    for name, book in books.items():
        dollars = sum(book.dollars.values())
        lost = dollars - book.dollars[Cause.PRODUCTIVE]
        ettr = book.ettr
        rows.append(
            {
                "job": name,
                **total([book]),
                "ettr": None if ettr is None else round(ettr, 6),
                "lost_dollars": round(lost, 2),
            }
        )
    return rows
