"""`holdfast job submit --wait`: look at the ledger until the job is over.

The ledger alone is asked, never the controller: that one may be killed and started again while
somebody waits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.cli.output import console
from orchestrator.core.jobs import OVER, Job, JobState
from orchestrator.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.cli.session import Session

LOOK_PAUSE = 0.5  #: seconds between two looks


def wait_for(session: Session, name: str, order: int) -> None:
    """Return when the job succeeded; raises `PermanentError` if it did not, or was refused."""
    out = console(err=True)
    with out.status(f"{name} is submitted") if out.is_terminal else _Plain(out) as line:
        while (over := _look(session, name, order, line.update)) is None:
            time.sleep(LOOK_PAUSE)
    if over.state is not JobState.SUCCEEDED:
        raise PermanentError(f"{name} {over.state}: {over.reason}")
    out.print(f"{name} succeeded")


class _Plain:
    """Tells each new line once, where there is no terminal to draw on."""

    def __init__(self, out: Console) -> None:
        self._out, self._last = out, ""

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, text: str) -> None:
        """Tell a line that differs from the last one."""
        if text != self._last:
            self._out.print(text)
            self._last = text


def _look(session: Session, name: str, order: int, tell: object) -> Job | None:
    """Return the job once it is over; a ledger that is busy is looked at again."""
    from orchestrator.cli.views import job_row

    try:
        answer = session.ledger.order_answer(order)
        if answer is not None and not answer[0]:
            raise PermanentError(f"refused: {answer[1]}")
        job = next((one for one in session.ledger.jobs() if one.name == name), None)
        if job is None:
            return None
        row = job_row(job, session.fleet(), session.ledger.attempts(name))
    except TransientError:
        return None
    if callable(tell):
        tell(_sentence(row))
    return job if job.state in OVER else None


def _sentence(row: dict[str, object]) -> str:
    parts = [f"{row['job']} is {row['state']}"]
    for key in ("attempt", "generation", "step"):
        if row[key] is not None:
            parts.append(f"{key} {row[key]}")
    return ", ".join(parts)
