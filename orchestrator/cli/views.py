"""Snapshots as rows: what commands show of nodes, clusters, jobs, attempts and incidents.

Pure: a fleet in, plain rows out. Reason stands beside state, with who and when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from orchestrator.cli.output import age, span
from orchestrator.core.decisions import Incident
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import Attempt, AttemptState, Job
from orchestrator.core.nodes import Node, NodeState
from orchestrator.core.pages import urgency
from orchestrator.core.verdicts import Finding, Severity
from orchestrator.daemon.holder import is_dead
from orchestrator.ledger.api import Event, Holder
from orchestrator.runtime.reports import AgentReport, RankReport

Row = dict[str, Any]

NODE_COLUMNS = {
    "CLUSTER": "cluster",
    "NODE": "node",
    "SKU": "sku",
    "GPUS": "accelerators",
    "$/H": "price_per_hour",
    "JOB": "job",
    "PHASE": "phase",
    "P(STABLE)": "p_stable",
    "FAILURES/WK": "failures_per_node_week",
    "SEEN": "seen",
    "FINDINGS": "findings",
    "STATE": "state",
    "REASON": "reason",
}
CLUSTER_COLUMNS = {
    "CLUSTER": "cluster",
    "PROVIDER": "provider",
    "NODES": "nodes",
    "IN USE": "in_use",
    "SPARE": "spare",
    "OTHER": "other",
    "$/H": "price_per_hour",
    "STATE": "state",
}
JOB_COLUMNS = {
    "JOB": "job",
    "PRIORITY": "priority",
    "CLUSTER": "cluster",
    "NODES": "nodes",
    "ATTEMPT": "attempt",
    "GENERATION": "generation",
    "STEP": "step",
    "LOSS": "loss",
    "COMMIT": "committed_step",
    "AGE": "age",
    "STATE": "state",
    "REASON": "reason",
}
ATTEMPT_COLUMNS = {
    "JOB": "job",
    "ATTEMPT": "attempt",
    "CLUSTER": "cluster",
    "GRANT": "grant",
    "NODES": "nodes",
    "STANDBYS": "standbys",
    "OPENED": "opened_at",
    "OUTCOME": "outcome",
    "STATE": "state",
    "REASON": "reason",
}
INCIDENT_COLUMNS = {
    "NUMBER": "number",
    "PAGE": "page",
    "SUBJECT": "subject",
    "URGENCY": "urgency",
    "OPENED": "opened_at",
    "CLOSED": "closed_at",
    "STATE": "state",
    "REASON": "reason",
}
EVENT_COLUMNS = {"TIME": "at", "WHO": "actor", "EVENT": "kind", "WHAT": "text"}


def node_row(node: Node, fleet: Fleet) -> Row:
    """Return one node for a list."""
    return {
        "cluster": node.cluster,
        "node": node.name,
        "sku": node.machine.sku,
        "accelerators": node.machine.accelerators,
        "price_per_hour": node.machine.price_per_hour,
        "job": f"{node.job}/{node.attempt}" if node.job else None,
        "seen": _seen(node, fleet),
        "findings": [
            told(one)
            for one in bad_findings(node, fleet)
            if one.severity is not Severity.UNKNOWN  # `node show` has them; a list would drown
        ],
        "state": node.state,
        "since": node.since,
        "cordon": node.cordon,
        "reason": node_reason(node, fleet.now),
    }


def node_reason(node: Node, now: datetime) -> str:
    """Say why a node is where it is, who said so and when; a cordon first."""
    state = f"{node.reason} ({age(node.since, now)} ago)"
    if node.cordon is None:
        return state
    cordon = node.cordon
    why = f": {cordon.reason}" if cordon.reason else ""
    return f"cordoned by {cordon.owner} {age(cordon.since, now)} ago{why}; {state}"


def bad_findings(node: Node, fleet: Fleet) -> list[Finding]:
    """Return what health checks hold against a node, worst first."""
    belief = fleet.beliefs.nodes.get(node.name)
    found = belief.findings if belief else ()
    order = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.UNKNOWN: 2}
    bad = [one for one in found if one.severity in order]
    return sorted(bad, key=lambda one: (order[one.severity], one.key))


def told(finding: Finding) -> str:
    """Return a finding in a few words."""
    return f"{finding.severity.name} {finding.detector} on {finding.component}"


def _seen(node: Node, fleet: Fleet) -> str:
    belief = fleet.beliefs.nodes.get(node.name)
    if belief is None:
        return "never"
    if belief.unreached_since is not None:
        return f"unreachable {age(belief.unreached_since, fleet.now)}"
    return f"{age(belief.reached_at, fleet.now)} ago" if belief.reached_at else "never"


def cluster_row(cluster: Cluster, fleet: Fleet) -> Row:
    """Return one cluster for a list."""
    nodes = [node for node in fleet.nodes.values() if node.cluster == cluster.name]
    count = Counter(node.state for node in nodes)
    prices = [node.machine.price_per_hour for node in nodes if node.state != NodeState.RETIRED]
    known = [price for price in prices if price is not None]
    return {
        "cluster": cluster.name,
        "provider": cluster.provider,
        "nodes": len(nodes),
        "in_use": count[NodeState.IN_USE],
        "spare": count[NodeState.SPARE] + count[NodeState.STANDBY],
        "other": {
            state.value: n
            for state, n in sorted(count.items())
            if state not in (NodeState.IN_USE, NodeState.SPARE, NodeState.STANDBY)
        },
        "price_per_hour": round(sum(known), 2) if known else None,
        "state": _cluster_state(cluster, fleet),
    }


def _cluster_state(cluster: Cluster, fleet: Fleet) -> str:
    belief = fleet.beliefs.clusters.get(cluster.name)
    if belief is None:
        return "not listed yet"
    if belief.failing_since is not None:
        return f"provider fails for {age(belief.failing_since, fleet.now)}: {belief.error}"
    return "ok"


def attempt_of(job: Job, attempts: Iterable[Attempt]) -> Attempt | None:
    """Return the newest attempt of a job."""
    mine = [attempt for attempt in attempts if attempt.job == job.name]
    return max(mine, key=lambda attempt: attempt.number, default=None)


def reports_of(attempt: Attempt, fleet: Fleet) -> list[AgentReport]:
    """Return the newest reports of an attempt's agents, of its newest generation first."""
    beliefs = fleet.beliefs.nodes.values()
    known = [belief.agent(attempt.job, attempt.number) for belief in beliefs]
    reports = [one.report for one in known if one is not None and one.report is not None]
    return sorted(reports, key=lambda one: (-(one.generation or 0), one.node))


def job_row(job: Job, fleet: Fleet, attempts: Iterable[Attempt]) -> Row:
    """Return one job for a list: its attempt, generation and step beside its state."""
    attempt = attempt_of(job, attempts)
    reports = reports_of(attempt, fleet) if attempt else []
    generation = reports[0].generation if reports else None
    ranks = [rank for one in reports if one.generation == generation for rank in one.ranks]
    seen = fleet.beliefs.registers.get(job.name)
    head = seen.seen.commit if seen and seen.seen else None
    grant = attempt.grant if attempt else None
    return {
        "job": job.name,
        "priority": job.spec.priority,
        "cluster": attempt.cluster if attempt else None,
        "nodes": list(grant.nodes) if grant and attempt and _open(attempt) else [],
        "attempt": job.attempts or None,
        "checkpoint_every": span(attempt.every) if attempt and attempt.every else None,
        "generation": generation,
        "step": _common_step(ranks),
        "loss": _rounded(next((rank.loss for rank in ranks if rank.loss is not None), None)),
        "tokens_per_second": _rounded(_sum(rank.tokens_per_second for rank in ranks)),
        "data_wait": _rounded(_most(rank.data_wait for rank in ranks)),
        "committed_step": head.step if head else None,
        "submitted_at": job.submitted_at,
        "age": age(job.submitted_at, fleet.now),
        "state": job.state,
        "since": job.since,
        "reason": job.reason,
    }


def job_starts(job: Job, fleet: Fleet, attempts: Iterable[Attempt]) -> list[str]:
    """Return how ranks start on each node: forked from a warm parent, or cold, and why."""
    attempt = attempt_of(job, attempts)
    reports = reports_of(attempt, fleet) if attempt else []
    return [f"{one.node}: {one.warmth}" for one in reports if one.warmth]


def _open(attempt: Attempt) -> bool:
    return attempt.state is not AttemptState.CLOSED


def _common_step(ranks: Iterable[RankReport]) -> int | None:
    """Return the last step that every rank completed."""
    return min((rank.step for rank in ranks if rank.step is not None), default=None)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def attempt_row(attempt: Attempt) -> Row:
    """Return one attempt for a list."""
    grant = attempt.grant
    return {
        "job": attempt.job,
        "attempt": attempt.number,
        "cluster": attempt.cluster,
        "grant": grant.number if grant else None,
        "nodes": list(grant.nodes) if grant else [],
        "standbys": list(grant.standbys) if grant else [],
        "checkpoint_every": span(attempt.every) if attempt.every else None,
        "opened_at": attempt.opened_at,
        "outcome": attempt.outcome,
        "state": attempt.state,
        "since": attempt.since,
        "reason": attempt.reason,
    }


def incident_row(incident: Incident) -> Row:
    """Return one incident for a list."""
    return {
        "number": incident.number,
        "page": incident.page,
        "subject": incident.subject,
        "urgency": urgency(incident.page),
        "opened_at": incident.opened_at,
        "closed_at": incident.closed_at,
        "state": "closed" if incident.closed_at else "open",
        "runbook": f"holdfast runbook show {incident.page.value}",
        "reason": incident.reason,
    }


def event_row(event: Event) -> Row:
    """Return one event of a story."""
    return {
        "at": event.at,
        "actor": event.actor,
        "kind": event.kind,
        "text": event.text,
        "subjects": list(event.subjects),
        "data": event.data,
    }


def controller_row(holder: Holder | None, now: datetime) -> Row:
    """Return who acts at the moment."""
    if holder is None:
        return {"name": None, "token": None, "alive": False, "expires_at": None}
    return {
        "name": holder.name,
        "token": holder.token,
        "alive": holder.expires_at > now and not is_dead(holder.name),
        "expires_at": holder.expires_at,
    }
