"""Options that take a duration, such as 30m, 24h or 7d."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def duration_option(name: str, text: str) -> Callable[[Function], Function]:
    """Give a command an option whose value is a `timedelta`, or None if it is not given."""
    return click.option(name, callback=_read, help=text)


def _read(_: click.Context, __: click.Parameter, value: str | None) -> timedelta | None:
    from orchestrator.config import duration

    if value is None:
        return None
    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
