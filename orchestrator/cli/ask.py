"""Asking the controller for something: an order in the ledger, and its answer.

The command line changes nothing by itself: it writes an order, the controller carries it out or
refuses it, and answers exactly once. While no controller runs the order waits.
"""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.output import say
from orchestrator.errors import PermanentError, UserError

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.core.observations import OrderKind

ANSWER_WAIT = 6.0  #: seconds for an answer while a controller runs
LOOK_PAUSE = 0.1

Function = TypeVar("Function", bound=Callable[..., Any])


def _user() -> str:
    return os.environ.get("USER") or getpass.getuser()


def by_option(function: Function) -> Function:
    """Give a command `--by NAME` (parameter `by`)."""
    return click.option(
        "--by", default=_user, show_default="$USER", help="Who asks; kept in the ledger."
    )(function)


def reason_option(function: Function) -> Function:
    """Give a command `--reason TEXT` (parameter `reason`)."""
    return click.option("--reason", default="", help="Why; shown wherever the effect is.")(function)


def yes_option(function: Function) -> Function:
    """Give a command `--yes` (parameter `yes`)."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is taken away; raises `UserError` without a yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody can answer here: give --yes")
    if not click.confirm(question, err=True):
        raise UserError("nothing was done")


def order(session: Session, kind: OrderKind, subject: str, *, by: str, reason: str) -> None:
    """Write an order about a node or a job, and tell its answer; raises if it is refused."""
    tell_answer(session, place_order(session, kind, subject, (by, reason), {}))


def place_order(
    session: Session,
    kind: OrderKind,
    subject: str,
    who: tuple[str, str],
    body: Mapping[str, Any],
) -> int:
    """Write an order by `who` (name, reason) and return its number."""
    by, reason = who
    return session.ledger.order(kind, subject, by, reason, body, session.now())


def tell_answer(session: Session, number: int) -> bool:
    """Wait a moment for the answer and tell it; False if it is still open.

    Raises `PermanentError` if the order was refused.
    """
    alive = controller_alive(session)
    until = time.monotonic() + (ANSWER_WAIT if alive else 0.0)
    while (answer := session.ledger.order_answer(number)) is None:
        if time.monotonic() >= until:
            why = "the controller has not answered yet" if alive else "no controller runs now"
            say(f"order {number} is queued: {why}; it is carried out as soon as one looks")
            return False
        time.sleep(LOOK_PAUSE)
    done, text = answer
    if not done:
        raise PermanentError(f"refused: {text}")
    say(text)
    return True


def controller_alive(session: Session) -> bool:
    """Say whether somebody holds the lease now."""
    holder = session.ledger.holder()
    if holder is None or holder.expires_at <= session.now():
        return False
    from orchestrator.daemon.holder import is_dead

    return not is_dead(holder.name)
