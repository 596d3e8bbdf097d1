"""What people are told, and what a sink is: somewhere it is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.core.decisions import Incident
from orchestrator.core.pages import Page, Urgency, urgency

#: What was told of each incident, by its number: plain JSON types, kept by the ledger. A sink that
#: changes an entry assigns it again, so that a mapping that writes through notices.
Memory = MutableMapping[int, dict[str, Any]]


class Kind(StrEnum):
    """The three things that are told of an incident."""

    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to be told."""

    number: int  #: of the incident: `holdfast incident show NUMBER`
    page: Page
    urgency: Urgency
    subject: str  #: node, job, cluster or provider
    text: str  #: plain sentences; may hold text from nodes, so it is untrusted
    runbook: str  #: "runbooks/hardware-fault.md"
    at: datetime
    kind: Kind
    data: Mapping[str, Any] = field(default_factory=dict)  #: shown as name: value

    @property
    def key(self) -> str:
        """Name this message: the same thing told again has the same key."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:12]
        return f"{self.number}/{self.kind}/{digest}"


class Sink(Protocol):
    """Somewhere alerts go. Telling the same alert twice must not show it twice."""

    @property
    def name(self) -> str:
        """Return the name under which the desk remembers what it was told."""

    @property
    def limited(self) -> bool:
        """Say whether it reaches people, so that the limit per hour holds for it."""

    def tell(self, alert: Alert) -> None:
        """Tell it. Raises `TransientError` to be asked again later, or `PermanentError`."""


def alert(
    incident: Incident,
    kind: Kind,
    *,
    at: datetime,
    text: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Alert:
    """Return what to tell of an incident; its reason, unless there is a text of its own."""
    return Alert(
        number=incident.number,
        page=incident.page,
        urgency=urgency(incident.page),
        subject=incident.subject,
        text=incident.reason if text is None else text,
        runbook=f"runbooks/{incident.page}.md",
        at=at,
        kind=kind,
        data=data or {},
    )
