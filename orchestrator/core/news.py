"""What changed between two beliefs that people may ask about later: `holdfast why` tells it.

Agents write notes of what they see; this is the same for what the controller sees: a node falls
silent or comes back, loses its power, a check says CRITICAL, a register has another generation (all
that is left of a gang whose agents are lost). Pure; the daemon writes the result into the ledger as
events, in the same breath as the beliefs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.beliefs import (
    AgentBelief,
    Beliefs,
    ClusterBelief,
    LinkBelief,
    NodeBelief,
    RegisterBelief,
)
from orchestrator.core.cohorts import CohortBelief
from orchestrator.core.links import verdict
from orchestrator.core.nodes import ClusterName, NodeName
from orchestrator.core.observations import Power
from orchestrator.core.sheets import changed
from orchestrator.core.verdicts import Severity
from orchestrator.runtime.lineage import Generation


@dataclass(frozen=True, slots=True)
class News:
    """One thing that changed."""

    at: datetime  #: when it was true, as far as we can tell
    kind: str  #: agent-silent, agent-gone, node-unreached, node-back, node-lost, finding, ...
    subjects: tuple[str, ...]
    text: str
    data: dict[str, Any] = field(default_factory=dict)


def news(before: Beliefs, after: Beliefs) -> tuple[News, ...]:
    """Return what changed, oldest first."""
    found: list[News] = []
    for name in changed(before.nodes, after.nodes):
        old, node = before.nodes.get(name, NodeBelief(name)), after.nodes.get(name)
        if node is not None:
            found += [*_of_node(old, node), *_of_agents(old, node), *_of_findings(old, node)]
    for cluster, belief in after.clusters.items():
        found += _of_cluster(before.clusters.get(cluster, ClusterBelief(cluster)), belief)
    for job, register in after.registers.items():
        if register is not before.registers.get(job):
            found += _of_register(before.registers.get(job, RegisterBelief(job)), register)
    for key, cohort in after.cohorts.items():
        if cohort is not before.cohorts.get(key):
            found += _of_cohort(before.cohorts.get(key), cohort)
    for name, links in after.links.items():
        if links is not before.links.get(name):
            found += _of_links(before.links.get(name), links)
    return tuple(sorted(found, key=lambda one: (one.at, one.kind, one.subjects)))


def _of_cohort(old: CohortBelief | None, new: CohortBelief) -> Iterator[News]:
    """Tell that a cohort is called chaotic, or stable again; as of the failure that showed it."""
    was = old.phases.chaotic_since if old is not None else None
    phases = new.phases
    if (phases.chaotic_since is None) == (was is None):
        return
    phase = "chaotic" if phases.chaotic_since is not None else "stable again"
    low, high = phases.interval()
    rate = f"{phases.rate:.2g} [{low:.2g}, {high:.2g}] failures per node-week"
    text = f"{new.key} is called {phase}: P(chaotic) {phases.p_chaotic:.2f}, {rate}"
    kind = f"cohort-{phase.split()[0]}"
    yield News(phases.seen_at, kind, (new.key, new.cluster), text)


def _of_links(old: LinkBelief | None, new: LinkBelief) -> Iterator[News]:
    """Tell what a localisation came to."""
    found = verdict(new)
    if found is None or (old is not None and verdict(old) is not None):
        return
    inquiry = new.inquiry
    text = f"tests between {len(inquiry.nodes)} nodes of {inquiry.job}: {found.outcome}"
    text = f"{text}, {found.reason}" if found.reason else text
    subjects = (inquiry.job, f"{inquiry.job}/{inquiry.attempt}", *sorted(found.nodes))
    yield News(new.tested_at, "localised", subjects, text)


def _of_node(old: NodeBelief, new: NodeBelief) -> Iterator[News]:
    name: NodeName = new.node
    if new.unreached_since is not None and old.unreached_since is None:
        text = f"{name} cannot be reached: {new.unreached_error}"
        yield News(new.unreached_since, "node-unreached", (name,), text)
    if new.unreached_since is None and old.unreached_since is not None and new.reached_at:
        yield News(new.reached_at, "node-back", (name,), f"{name} can be reached again")
    power, was = (one.seen.power if one.seen else None for one in (new, old))
    if power is not was and power is Power.STOPPED and new.seen_at is not None:
        text = f"{name} has no power, says its provider: nothing runs on it"
        yield News(new.seen_at, "node-lost", (name,), text)


def _of_agents(old: NodeBelief, new: NodeBelief) -> Iterator[News]:
    for agent in new.agents:
        was = old.agent(agent.job, agent.attempt) or AgentBelief(agent.job, agent.attempt)
        subjects = (new.node, agent.job, f"{agent.job}/{agent.attempt}")
        if agent.silent_since is not None and was.silent_since is None:
            text = f"the agent of {agent.job} on {new.node} is silent: {agent.silence}"
            yield News(agent.silent_since, "agent-silent", subjects, text)
        if agent.gone_at is not None and was.gone_at is None:
            text = f"nothing of {agent.job} is left on {new.node}: {agent.proof}"
            yield News(agent.gone_at, "agent-gone", subjects, text)


def _of_findings(old: NodeBelief, new: NodeBelief) -> Iterator[News]:
    known = {(one.key, one.severity, one.code, one.boot_id) for one in old.findings}
    for finding in new.findings:
        fresh = (finding.key, finding.severity, finding.code, finding.boot_id) not in known
        if fresh and finding.severity is Severity.CRITICAL:
            text = f"{new.node}: {finding.detector} {finding.component}: {finding.evidence}"
            yield News(finding.observed_at, "finding", (new.node,), text)


def _of_cluster(old: ClusterBelief, new: ClusterBelief) -> Iterator[News]:
    name: ClusterName = new.cluster
    if new.failing_since is not None and old.failing_since is None:
        text = f"the provider of {name} does not answer: {new.error}"
        yield News(new.failing_since, "provider-failed", (name,), text)


def _of_register(old: RegisterBelief, new: RegisterBelief) -> Iterator[News]:
    """Tell each generation that a register holds, with the step that it resumes from if known."""
    seen, was = new.seen, old.seen
    if seen is None or seen is was or seen.fence is None:
        return
    known = max((one.seq for one in was.generations), default=0) if was is not None else 0
    heads = {one.commit.seq: one.commit for one in (was, seen) if one is not None and one.commit}
    for generation in seen.generations:
        if generation.seq <= known:
            continue
        data: dict[str, Any] = {
            "number": generation.number,
            "seq": generation.seq,
            "members": [member.node for member in generation.members],
            "resume": generation.resume,
        }
        start = "nothing" if generation.resume is None else f"commit {generation.resume}"
        head = heads.get(generation.resume or 0)
        if head is not None:
            start = f"step {head.step}"
            data |= {"step": head.step, "under": head.under, "durable_at": head.at}
        subjects = (new.job, f"{new.job}/{seen.fence.attempt}")
        members = len(generation.members)
        text = f"the register has generation {generation.number} of {members} nodes, from {start}"
        yield News(_written(generation, seen.at), "generation-recorded", subjects, text, data)


def _written(generation: Generation, seen_at: datetime) -> datetime:
    """Return when a generation was written, on its writer's clock; never after it was read."""
    try:
        return min(datetime.fromtimestamp(generation.at, UTC), seen_at)
    except (ValueError, OverflowError, OSError):
        return seen_at
