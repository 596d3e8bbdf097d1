"""A host that shows another key than the pinned one: replaced, or somebody stands in between.

That is evidence of the controller's own transport about the machine, so it becomes a finding that
quarantines the node (`host-key:changed`), and nothing of what the host says is believed.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import NodeUnreached, Probed
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.errors import HoldfastError
from orchestrator.transports.ssh.hostkeys import ChangedHostKeyError


def not_reached(node: NodeName, error: HoldfastError, now: datetime) -> NodeUnreached | Probed:
    """Say why a node was not reached: silence, or a stranger in its place."""
    if not isinstance(error, ChangedHostKeyError):
        return NodeUnreached(node, now, str(error))
    finding = Finding(
        check="host-key",
        component="host",
        severity=Severity.CRITICAL,
        fault=FaultClass.HARDWARE,
        evidence=str(error),
        channel=Channel.PROVIDER,
        observed_at=now,
        code="changed",
        remedy="compare the key with the machine's own, pin the new one, release the node",
    )
    return Probed(node, now, "", (finding,), complete=False)
