"""Alerts as lines of text: on stderr, in the journal, in a file. Works without anything else."""

from __future__ import annotations

from typing import TextIO

from orchestrator.alerts.api import Alert


class Log:
    """A sink that writes one line per alert and never fails a tick."""

    name = "log"
    limited = False

    def __init__(self, stream: TextIO) -> None:
        """Write to this stream; the caller keeps it open."""
        self._stream = stream

    def tell(self, alert: Alert) -> None:
        """Write the line."""
        print(line(alert), file=self._stream, flush=True)


def line(alert: Alert) -> str:
    """Return the alert as one line that people read and machines split.

    2026-11-23T12:00:00+00:00 ALERT opened incident=12 page=hardware-fault subject=a-2: Xid 79 ...
    """
    head = (
        f"{alert.at.isoformat(timespec='seconds')} {alert.urgency.upper()} {alert.kind} "
        f"incident={alert.number} page={alert.page} subject={_plain(alert.subject)}"
    )
    more = "".join(f" {name}={_plain(str(value))!r}" for name, value in alert.data.items())
    return f"{head}: {_plain(alert.text)} runbook={alert.runbook}{more}"


def _plain(text: str) -> str:
    """Keep it one line, and harmless for a terminal: texts of nodes are untrusted."""
    return "".join(one if one.isprintable() else " " for one in text)
