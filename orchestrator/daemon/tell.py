"""Incidents of the ledger -> alerts: each opening and each end is told once, by the desk.

The loop calls it after each tick. Telling may be slow (Slack) and happens in a pool of its own;
what the sinks must remember goes back into the ledger in the loop's thread, which alone writes.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from orchestrator.alerts.api import Alert, Kind, Sink, alert
from orchestrator.alerts.desk import Desk
from orchestrator.alerts.log import Log
from orchestrator.alerts.slack import Slack
from orchestrator.config.settings import Settings
from orchestrator.core.decisions import Incident
from orchestrator.daemon.pools import Pools
from orchestrator.errors import HoldfastError, TransientError
from orchestrator.ledger.api import Ledger

LOGGER = logging.getLogger("holdfast")
RETRY = timedelta(seconds=5)  #: when a sink does not say when to come back
SLACK_TIMEOUT = 3  #: seconds for one call; an alert makes up to four
TELL_LIMIT = 12.0  #: seconds that must be left on the lease
TRIES_MAX = 50  #: of one alert; then it is given up, and said


class Memory(dict[int, dict[str, Any]]):
    """What the desk remembers; knows which incidents changed since it was asked last."""

    def __init__(self, known: dict[int, dict[str, Any]]) -> None:
        """Begin with what the ledger keeps."""
        super().__init__(known)
        self._changed: set[int] = set()

    def __setitem__(self, number: int, state: dict[str, Any]) -> None:
        """Remember, and note that it must be kept."""
        super().__setitem__(number, state)
        self._changed.add(number)

    def changed(self) -> tuple[int, ...]:
        """Return the incidents whose state must still be kept."""
        return tuple(sorted(self._changed.copy()))  # the pool may add one at any moment

    def take(self, number: int) -> dict[str, Any]:
        """Return what to keep of a changed incident; what changes from now on is a change anew."""
        self._changed.discard(number)
        return self[number]

    def put_back(self, number: int) -> None:
        """Note that it could not be kept, and is still to be."""
        self._changed.add(number)

    def reload(self, known: dict[int, dict[str, Any]]) -> None:
        """Begin again with what the ledger keeps: another daemon may have told since."""
        self.clear()
        self.update(known)
        self._changed.clear()


@dataclass(slots=True)
class Waiting:
    """An alert on its way."""

    alert: Alert
    tries: int = 0
    not_before: datetime | None = None


@dataclass(slots=True)
class Teller:
    """Tells what is new among the incidents."""

    ledger: Ledger
    pools: Pools
    desk: Desk
    memory: Memory
    lease_left: Callable[[], float]  #: seconds
    _open: dict[int, Incident] = field(default_factory=dict)
    _queue: deque[Waiting] = field(default_factory=deque)
    _reign: int = 0  #: token under which `_open` and the memory were read

    def __call__(self, token: int, now: datetime) -> None:
        """Find what is new, hand it to the pool, and keep what the sinks remembered."""
        if token != self._reign:
            self._begin(token)
        self._keep(token)
        open_now = {one.number: one for one in self.ledger.incidents(open_only=True)}
        for number, incident in open_now.items():
            if number not in self._open:
                self._queue.append(Waiting(alert(incident, Kind.OPENED, at=incident.opened_at)))
        for number, incident in self._open.items():
            if number not in open_now:
                over = alert(incident, Kind.CLOSED, at=now, text="It is over.")
                self._queue.append(Waiting(over))
        self._open = open_now
        if self._queue:
            self.pools.submit("alerts", "alerts", lambda: self._tell(now))

    def _begin(self, token: int) -> None:
        """Begin with what the ledger knows: it is a new reign, maybe after another daemon's."""
        self._queue.clear()
        self.memory.reload(self.ledger.alert_states())
        self._reign, self._open = token, self._told_before()

    def _keep(self, token: int) -> None:
        for number in self.memory.changed():
            try:
                self.ledger.remember_alert(token, number, self.memory.take(number))
            except HoldfastError:
                self.memory.put_back(number)
                raise

    def _told_before(self) -> dict[int, Incident]:
        """Return the incidents whose opening was told and whose end was not: it may be over now."""
        told = {number for number, state in self.memory.items() if not state.get("over")}
        return {
            one.number: one for one in self.ledger.incidents(open_only=False) if one.number in told
        }

    def _tell(self, now: datetime) -> None:
        """Tell what waits. Sinks cannot compare tokens: only with enough time left on the lease."""
        if self.lease_left() < TELL_LIMIT:
            return
        held: set[int] = set()  # incidents of which something waits: their end must not overtake
        for _ in range(len(self._queue)):
            waiting = self._queue.popleft()
            number = waiting.alert.number
            early = waiting.not_before is not None and waiting.not_before > now
            if early or number in held:
                held.add(number)
                self._queue.append(waiting)
                continue
            try:
                self.desk.tell(waiting.alert)
                self._note_end(waiting.alert)
            except TransientError as error:
                held.add(number)
                self._later(waiting, error, now)
            except HoldfastError as error:
                LOGGER.warning("an alert cannot be told: %s", error)
                self._note_end(waiting.alert)

    def _note_end(self, told: Alert) -> None:
        if told.kind is Kind.CLOSED:
            self.memory[told.number] = {**self.memory.get(told.number, {}), "over": True}

    def _later(self, waiting: Waiting, error: TransientError, now: datetime) -> None:
        waiting.tries += 1
        if waiting.tries >= TRIES_MAX:
            LOGGER.error("an alert is given up after %d tries: %s", waiting.tries, error)
            self._note_end(waiting.alert)
            return
        pause = RETRY if error.retry_after is None else timedelta(seconds=error.retry_after)
        waiting.not_before = now + pause
        self._queue.append(waiting)


def build_teller(
    settings: Settings, ledger: Ledger, pools: Pools, lease_left: Callable[[], float]
) -> Teller:
    """Return a teller with the sinks that the configuration names; the log is always one."""
    memory = Memory(ledger.alert_states())
    sinks: list[Sink] = [Log(sys.stderr)]
    slack = settings.alerts.slack
    if slack is not None:
        token, url = slack.token.reveal, slack.base_url
        sinks.append(Slack(slack.channel, token, memory, base_url=url, timeout=SLACK_TIMEOUT))
    desk = Desk(sinks, memory, pages_per_hour=settings.core_policy.pages_per_hour)
    return Teller(ledger, pools, desk, memory, lease_left)
