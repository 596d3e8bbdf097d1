"""The ledger: what was seen, believed, meant and done. Its protocol, and the events it tells.

One process writes, the holder of the lease: each of its transactions compares the lease's token
inside itself, so that a controller that was stopped and comes back writes nothing. People write
orders only, without a token, from any process. Rows never leave `ledger/`: everything here is an
object of the core.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import Effect, Incident, Intent, LedgerOnly
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import Attempt, Job, SeatGrant
from orchestrator.core.observations import Observation, Ordered, OrderKind
from orchestrator.errors import PermanentError

PRUNE_MAX = 20_000  #: observations forgotten in one transaction
BUDGETS = timedelta(days=1)  #: how far back `Fleet.used` goes, and outcomes of repairs
LATELY = timedelta(minutes=1)  #: how far back the other outcomes in `Fleet.settled` go

Assess = Callable[[Beliefs, Sequence[Observation], datetime], Beliefs]


class StaleTokenError(PermanentError):
    """Somebody else holds the lease by now; nothing was written."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, for people: `holdfast why` tells them in order."""

    at: datetime  #: when it happened, on the clock of whoever saw it
    kind: str
    subjects: tuple[str, ...]  #: nodes, jobs, attempts (JOB/N), clusters
    text: str
    actor: str = "controller"  #: or "agent NODE", "operator NAME"
    data: dict[str, Any] = field(default_factory=dict)
    recorded_at: datetime | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lease."""

    name: str
    token: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Settlement:
    """One intent and what came of it, if it is known."""

    intent: Intent
    tries: int  #: how often the same key was intended
    ok: bool | None = None
    text: str = ""
    settled_at: datetime | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One observation as it lies in the ledger; those of one `record` share the moment."""

    number: int
    recorded_at: datetime
    observation: Observation


class Ledger(Protocol):
    """What the daemon, the command line and the simulator know of a ledger."""

    # -- the lease -------------------------------------------------------------------------

    def acquire(self, holder: str, ttl: timedelta, now: datetime) -> int | None:
        """Take the lease if it is free, expired or ours; the token grows with each taking."""
        ...

    def renew(self, token: int, ttl: timedelta, now: datetime) -> bool:
        """Keep the lease; False if it is somebody else's by now."""
        ...

    def release(self, token: int) -> None:
        """Give the lease back, if it is still the one with this token."""
        ...

    def holder(self) -> Holder | None:
        """Say who holds the lease, expired or not; None if it was given back."""
        ...

    # -- the daemon's writes: each raises StaleTokenError and then has written nothing -----------

    def record(
        self, token: int, observations: Sequence[Observation], now: datetime, assess: Assess
    ) -> Beliefs:
        """Append observations and the beliefs that follow from them, in one transaction.

        Notes of agents become events, each once, however often an agent repeats it; so does what
        the controller noticed itself (`core.news`). An observation whose fields are not of their
        types, made of a node's untrusted words, is left out and told as `observation-refused`.
        """
        ...

    def apply(self, token: int, decision: LedgerOnly, now: datetime) -> None:
        """Enact a decision on the state and tell it as an event, in one transaction.

        Raises what `core.enact` raises for an unlawful move, and has then written nothing.
        """
        ...

    def intend(
        self, token: int, decision: Effect, now: datetime, deadline: datetime
    ) -> Intent | None:
        """Write an intent; None if one with the same key has no outcome yet."""
        ...

    def settle(
        self,
        token: int,
        key: str,
        now: datetime,
        *,
        ok: bool,
        text: str,
        data: Mapping[str, Any],
    ) -> None:
        """Write what came of an intent, exactly once; a second outcome is ignored."""
        ...

    def event(self, token: int, event: Event, now: datetime) -> None:
        """Tell something."""
        ...

    def remember_alert(self, token: int, incident: int, state: Mapping[str, Any]) -> None:
        """Keep what an alert's sink needs to find its thread again."""
        ...

    def prune(self, token: int, before: datetime) -> int:
        """Forget observations recorded before a moment; return how many, `PRUNE_MAX` at most.

        In pieces, so that no write waits long: call it again while it returns `PRUNE_MAX`.
        """
        ...

    # -- people ----------------------------------------------------------------------------

    def order(
        self,
        kind: OrderKind,
        subject: str,
        by: str,
        reason: str,
        body: Mapping[str, Any],
        now: datetime,
    ) -> int:
        """Ask for something, and tell that; returns the order's number."""
        ...

    def order_answer(self, number: int) -> tuple[bool, str] | None:
        """Return (done, reason) of an order that was settled; None while it is open."""
        ...

    def orders_open(self) -> tuple[Ordered, ...]:
        """Return the orders that wait, by number."""
        ...

    # -- reading -----------------------------------------------------------------------------

    def snapshot(self, now: datetime, clusters: tuple[Cluster, ...]) -> Fleet:
        """Return everything `reconcile` looks at."""
        ...

    def story(
        self, subject: str | None, since: datetime | None = None, limit: int = 500
    ) -> list[Event]:
        """Return the newest events about a subject (None: all), oldest first."""
        ...

    def told(
        self, subject: str, kinds: Collection[str], after: int = 0, limit: int = 1_000
    ) -> tuple[Event, ...]:
        """Return events of some kinds about a subject, by number, beginning behind `after`."""
        ...

    def jobs(self) -> tuple[Job, ...]:
        """Return every job."""
        ...

    def attempts(self, job: str | None = None) -> tuple[Attempt, ...]:
        """Return every attempt, of one job or of all."""
        ...

    def grants(self, job: str, attempt: int) -> tuple[SeatGrant, ...]:
        """Return every grant that was issued to an attempt."""
        ...

    def incidents(self, *, open_only: bool) -> tuple[Incident, ...]:
        """Return incidents by number."""
        ...

    def settlements(self, limit: int = 500) -> tuple[Settlement, ...]:
        """Return the newest intents with their outcomes, oldest first."""
        ...

    def observed(self, after: int = 0, limit: int = 1_000) -> tuple[Recorded, ...]:
        """Return observations that are still kept, by number, beginning behind `after`."""
        ...

    def alert_states(self) -> dict[int, dict[str, Any]]:
        """Return what `remember_alert` keeps, by incident."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
