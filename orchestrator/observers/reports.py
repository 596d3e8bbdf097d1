"""What agents say when they are asked, and what their nodes say when they are silent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.core.nodes import JobName, NodeName
from orchestrator.core.observations import (
    AgentGone,
    AgentSeen,
    AgentSilent,
    NodeReached,
    Observation,
    Probed,
)
from orchestrator.engines.api import AgentAddress, Found
from orchestrator.engines.site import Keys, Site
from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.observers.findings import moment, parse_all
from orchestrator.observers.strangers import not_reached
from orchestrator.runtime import reports
from orchestrator.runtime.reports import AgentReport
from orchestrator.runtime.wire import WireError

ASK_LIMIT = 2.0  #: seconds an agent has to answer


@dataclass(frozen=True, slots=True)
class Asked:
    """One agent to be asked."""

    node: NodeName
    job: JobName
    attempt: int
    address: AgentAddress | None  #: where it was last, if we know
    confirm: int  #: highest of its notes that the ledger holds
    heard: float | None = None  #: `at` of its last report that the ledger holds
    save_seconds: float | None = None  #: wanted between two durable checkpoints, if decided
    health_seconds: float | None = None  #: wanted between two runs of its health checks

    @property
    def run(self) -> str:
        """Name of the attempt on the node."""
        return f"{self.job}.{self.attempt}"


def ask_agent(
    site: Site, keys: Keys, asked: Asked, token: int, now: datetime
) -> tuple[Observation, ...]:
    """Ask one agent for its report; where it is silent, ask its node what became of it."""
    key = keys.key(asked.job, asked.attempt)
    first_error = "its address is not known"
    if asked.address is not None:
        try:
            return _seen(asked, _ask(site, asked, asked.address, key, token), now)
        except (TransientError, WireError) as error:  # its port may be somebody else's by now
            first_error = str(error)
        except PermanentError as error:
            silent = AgentSilent(asked.node, asked.job, asked.attempt, now, str(error))
            seen = not_reached(asked.node, error, now)
            return (silent, seen) if isinstance(seen, Probed) else (silent,)
    try:
        found = site.engine.find(asked.node, asked.run)
    except HoldfastError as error:
        return (
            AgentSilent(asked.node, asked.job, asked.attempt, now, first_error),
            not_reached(asked.node, error, now),
        )
    return _found(site, asked, found, key, token, now) or (
        NodeReached(asked.node, now, found.boot_id),
        AgentSilent(asked.node, asked.job, asked.attempt, now, first_error),
    )


def _found(
    site: Site, asked: Asked, found: Found, key: str, token: int, now: datetime
) -> tuple[Observation, ...]:
    reached = NodeReached(asked.node, now, found.boot_id)
    if found.agent is not None and found.agent != asked.address:
        try:
            return (reached, *_seen(asked, _ask(site, asked, found.agent, key, token), now))
        except HoldfastError:
            return ()  # it is told as silence, with the first error
    if found.agent is None and found.gone is not None:
        proof = f"{found.gone.get('by')}: {found.gone.get('why')}"
        return (reached, AgentGone(asked.node, asked.job, asked.attempt, now, proof))
    return ()


def _ask(site: Site, asked: Asked, address: AgentAddress, key: str, token: int) -> AgentReport:
    body: dict[str, Any] = {"ask": "status", "token": token, "confirm": asked.confirm}
    if asked.heard is not None:
        body["heard"] = asked.heard  # its clock for `stop_after` starts at an answer we kept
    if asked.save_seconds is not None:
        body["save_seconds"] = asked.save_seconds  # with every look: whoever is new learns it too
    if asked.health_seconds is not None:
        body["health_seconds"] = asked.health_seconds
    report = reports.decode(site.call(asked.node, address, key, body, timeout=ASK_LIMIT))
    if (report.node, report.job, report.attempt) != (asked.node, asked.job, asked.attempt):
        raise PermanentError(f"{asked.node}: another agent answered: {report.node} {report.job}")
    return report


def _seen(asked: Asked, report: AgentReport, now: datetime) -> tuple[Observation, ...]:
    seen = AgentSeen(asked.node, now, report)
    if not report.findings:
        return (seen,)
    findings = parse_all(report.findings)
    clock_at = moment(report.at)
    looked = Probed(asked.node, now, report.boot_id, findings, complete=True, clock_at=clock_at)
    return (seen, looked)
