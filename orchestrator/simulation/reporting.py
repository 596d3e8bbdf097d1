"""An agent's report, as the controller would read it off the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.runtime.lineage import Generation
from orchestrator.runtime.reports import PROTOCOL, AgentReport, Stage
from orchestrator.simulation.agenda import BEGIN
from orchestrator.simulation.machine import SimAgent, SimMachine

EPOCH = BEGIN.timestamp()


def report_of(  # noqa: PLR0913 - a report has that many parts
    machine: SimMachine,
    agent: SimAgent,
    now: float,
    *,
    stage: Stage,
    generation: Generation | None,
    members: tuple[str, ...],
    lost: tuple[str, ...] = (),
    failure: Mapping[str, Any] | None = None,
) -> AgentReport:
    """Return the whole present state of one agent."""
    return AgentReport(
        protocol=PROTOCOL,
        node=machine.node,
        job=agent.run[0],
        attempt=agent.run[1],
        agent=agent.nonce,
        boot_id=machine.boot_id,
        pid=1,
        host=agent.member.host,
        port=agent.member.port,
        at=EPOCH + now,
        started_at=EPOCH + agent.born,
        stage=stage,
        grant=0 if agent.grant is None else agent.grant.number,
        token=agent.token,
        generation=None if generation is None else generation.number,
        generation_seq=None if generation is None else generation.seq,
        members=members,
        peers_lost=lost,
        ranks=(),
        notes=tuple(agent.notes),
        failure=dict(failure or {}),
    )
