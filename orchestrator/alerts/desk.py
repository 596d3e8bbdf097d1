"""The desk: every alert goes to every sink once, and people are not flooded.

At most `pages_per_hour` incidents of each urgency are opened in a sink that reaches people; a
storm of alerts therefore never hides a page. The last one that gets through says so; the others
are in the log and in `holdfast incident list`. What follows on a held incident is held too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from orchestrator.alerts.api import Alert, Kind, Memory, Sink
from orchestrator.errors import HoldfastError

HOUR = timedelta(hours=1)
TOLD_MAX = 100  #: keys remembered per incident and sink


class Desk:
    """Tells alerts to sinks."""

    def __init__(self, sinks: Sequence[Sink], memory: Memory, *, pages_per_hour: int) -> None:
        """Use these sinks; `memory` holds what was told before, also by an earlier process."""
        self._sinks = tuple(sinks)
        self._memory = memory
        self._pages_per_hour = pages_per_hour

    def tell(self, alert: Alert) -> None:
        """Tell every sink that has not been told; the first error is raised when all were tried.

        Calling again with the same alert after a `TransientError` repeats nothing that succeeded.
        """
        errors: list[HoldfastError] = []
        loud, alert_for_people = self._admit(alert)
        for sink in self._sinks:
            if sink.limited and not loud:
                continue
            try:
                self._once(sink, alert_for_people if sink.limited else alert, alert.key)
            except HoldfastError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _once(self, sink: Sink, alert: Alert, key: str) -> None:
        if key in self._state(alert.number).get("told", {}).get(sink.name, ()):
            return
        sink.tell(alert)
        state = self._state(alert.number)  # the sink may have written its own part
        told = dict(state.get("told", {}))
        told[sink.name] = [*told.get(sink.name, ()), key][-TOLD_MAX:]
        self._memory[alert.number] = {**state, "told": told}

    def _admit(self, alert: Alert) -> tuple[bool, Alert]:
        """Say whether people hear of this incident, and what they hear."""
        state = self._state(alert.number)
        if "loud" not in state:
            if alert.kind is Kind.CLOSED:
                return False, alert  # nobody heard of it: its end is no news
            opened = self._opened(alert)
            state = {
                **state,
                "loud": opened < self._pages_per_hour,
                "last": opened + 1 == self._pages_per_hour,
                "urgency": alert.urgency.value,
                "opened": alert.at.timestamp(),
            }
            self._memory[alert.number] = state
        if state.get("last") and alert.kind is Kind.OPENED:
            return bool(state["loud"]), self._with_warning(alert)
        return bool(state["loud"]), alert

    def _opened(self, alert: Alert) -> int:
        """Count the incidents of this urgency that people heard of within the hour before."""
        since = (alert.at - HOUR).timestamp()
        return sum(
            1
            for state in self._memory.values()
            if state.get("loud")
            and state.get("urgency") == alert.urgency.value
            and state.get("opened", 0.0) > since
        )

    def _with_warning(self, alert: Alert) -> Alert:
        more = (
            f"\nThis is number {self._pages_per_hour} of its kind within an hour: further ones "
            "are told in the log and by `holdfast incident list` only."
        )
        return replace(alert, text=alert.text + more)

    def _state(self, number: int) -> dict[str, Any]:
        return self._memory.get(number, {})
