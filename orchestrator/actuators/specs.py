"""Decisions -> what agents are told: the spec they start with, the grants they live inside."""

from __future__ import annotations

from orchestrator.config.jobs import agent_launch
from orchestrator.core.decisions import StartAgent
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import Attempt
from orchestrator.core.nodes import NodeName
from orchestrator.engines.site import Site
from orchestrator.errors import PermanentError
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Member
from orchestrator.runtime.spec import AgentSpec, Replicate


def agent_spec(fleet: Fleet, site: Site, decision: StartAgent, token: int, key: str) -> AgentSpec:
    """Return what the agent of one node is started with."""
    wish = fleet.jobs[decision.job].spec
    belief = fleet.beliefs.nodes[decision.node]
    launch = agent_launch(wish.launch)
    copies = launch.pop("replicate", None)
    return AgentSpec(
        node=decision.node,
        job=decision.job,
        attempt=decision.attempt,
        token=token,
        key=key,
        host=site.host(decision.node),
        boot_id=belief.boot_id,
        ranks_per_node=wish.ranks_per_node,
        checkpoints=wish.checkpoints,
        register=wish.register,
        when_alone=wish.when_alone.value,
        stop_after=wish.stop_after.total_seconds(),
        stop_grace=wish.stop_grace.total_seconds(),
        health=site.health(decision.node, belief.boot_id),
        health_every=site.health_every,
        health_limit=site.health_limit,
        replicate=None if copies is None else Replicate(**copies),
        **launch,
    )


def wire_grant(fleet: Fleet, attempt: Attempt, token: int) -> Grant:
    """Return the attempt's newest grant as its agents read it."""
    wish, seats = fleet.jobs[attempt.job].spec, attempt.grant
    if seats is None:
        raise PermanentError(f"attempt {attempt.job}/{attempt.number} has no grant yet")
    addresses = dict(seats.addresses)

    def member(node: NodeName) -> Member:
        where, _, _ = addresses[node].partition("#")  # the nonce behind it is the agent's word
        host, _, port = where.rpartition(":")
        return Member(node, host, int(port))

    return Grant(
        job=attempt.job,
        attempt=attempt.number,
        number=seats.number,
        token=token,
        nodes=tuple(member(node) for node in seats.nodes),
        standbys=tuple(member(node) for node in seats.standbys),
        nodes_min=wish.nodes_min,
        nodes_max=wish.nodes_max,
        generations_max=wish.generations_max,
        budget=dict(wish.budget),
        abandoned=seats.abandoned,
    )
