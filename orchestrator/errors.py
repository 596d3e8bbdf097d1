"""The error tree: whose fault it is, and whether trying again helps.

Standard library only; anyone may import it. Third-party exceptions are translated into one of
these at the border (`raise ... from error`), so that inside the house an error always answers
two questions: who must act, and does another look help? Broad `except` clauses stand in two
places only: the daemon's tick and the CLI boundary.
"""

from __future__ import annotations

__all__ = ["HoldfastError", "PermanentError", "TransientError", "UserError"]


class HoldfastError(Exception):
    """The root of every error that Holdfast raises on purpose."""

    exit_code = 1  #: what the process exits with when nobody catches it


class UserError(HoldfastError):
    """The caller asked for something impossible; the message says what, where and what to do."""

    exit_code = 2


class TransientError(HoldfastError):
    """The world was not ready; the same call may succeed later."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Remember when another try may help, in seconds, if the other side said so."""
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(HoldfastError):
    """Nothing that Holdfast may do by itself will help."""

    exit_code = 1
