"""Passive health checks of a node that has no agent, run over its transport."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import NodeUnreached, Probed
from orchestrator.engines.site import Site
from orchestrator.errors import HoldfastError
from orchestrator.observers.findings import parse_output
from orchestrator.observers.strangers import not_reached

LIMIT = 20.0  #: seconds for the whole run; each check has its own, shorter one


def probe_node(site: Site, node: NodeName, boot_id: str, now: datetime) -> Probed | NodeUnreached:
    """Run the passive checks on a node. Exit codes are Nagios'; only the JSON lines count."""
    try:
        ended = site.run(node)(site.health(node, boot_id), limit=LIMIT)
    except HoldfastError as error:
        return not_reached(node, error, now)
    findings, complete = parse_output(ended.out)
    seen_boot = next((finding.boot_id for finding in findings if finding.boot_id), boot_id)
    clock_at = max((finding.observed_at for finding in findings), default=None)
    return Probed(node, now, seen_boot, findings, complete, clock_at if complete else None)
