"""What the ranks of one generation on one node are started with: arguments and environment.

The contract with the user's script is torchrun's, so that a script written for it runs unchanged.

Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.runtime.lineage import Member
from orchestrator.runtime.place import Place
from orchestrator.runtime.spec import AgentSpec

#: of the agent's own environment, what no rank inherits
_DROPPED = ("HOLDFAST_", "TORCHELASTIC_", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


@dataclass(frozen=True)
class RankPlan:
    """One generation, as one of its nodes sees it."""

    generation: int  #: number within the attempt
    generation_seq: int
    members: tuple[Member, ...]
    group_rank: int
    ranks_per_node: int
    world_size: int
    master_addr: str
    master_port: int
    agent_store: bool  #: a store process holds the port
    resume: int | None  #: seq of the commit to load
    restarts: int  #: TORCHELASTIC_RESTART_COUNT
    memory_floor: int = 0  #: number of the oldest generation whose states in memory count
    resume_step: int | None = None  #: step of the commit to load

    def rank(self, local_rank: int) -> int:
        """Return the global rank of one of this node's ranks."""
        return self.group_rank * self.ranks_per_node + local_rank


def argv(spec: AgentSpec) -> list[str]:
    """Return the command, with "python" made the job's interpreter."""
    first, *rest = spec.command
    return [spec.python or sys.executable if first == "python" else first, *rest]


def environment(
    spec: AgentSpec, place: Place, plan: RankPlan, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Return what every rank of this node gets; for `launch: ranks` see also `seat`.

    The job's own `env` overrides what the node has, and nothing of ours can be overridden. Only
    the staged runtime is put on the import path; a PYTHONPATH that the job declares follows it.
    """
    base = {name: value for name, value in inherited.items() if not name.startswith(_DROPPED)}
    base.setdefault("PYTHONUNBUFFERED", "1")  # or the last words of a killed rank are lost
    if spec.launch == "ranks" and plan.ranks_per_node > 1:
        base.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    base.update(spec.env)
    path = [str(place.site), *filter(None, [spec.env.get("PYTHONPATH")])]
    return {
        **base,
        **place.marker,
        "PYTHONPATH": ":".join(path),
        "HOLDFAST_JOB": spec.job,
        "HOLDFAST_ATTEMPT": str(spec.attempt),
        "HOLDFAST_NODE": spec.node,
        "HOLDFAST_GENERATION": str(plan.generation),
        "HOLDFAST_GENERATION_SEQ": str(plan.generation_seq),
        "HOLDFAST_RESUME": "" if plan.resume is None else str(plan.resume),
        "HOLDFAST_RESUME_STEP": "" if plan.resume_step is None else str(plan.resume_step),
        "HOLDFAST_MEMORY_FLOOR": str(plan.memory_floor),
        "HOLDFAST_CHECKPOINTS": spec.checkpoints or "",
        "HOLDFAST_REGISTER": spec.register or "",
        "HOLDFAST_REPLICAS": "\n".join(spec.replicas),
        "HOLDFAST_HEARTBEAT": str(place.heartbeats),
        "HOLDFAST_COLLECTIVES": str(place.collectives),
        "GROUP_RANK": str(plan.group_rank),
        "MASTER_ADDR": plan.master_addr,
        "MASTER_PORT": str(plan.master_port),
        **(_of_ranks(spec, plan) if spec.launch == "ranks" else {"NNODES": str(len(plan.members))}),
    }


def _of_ranks(spec: AgentSpec, plan: RankPlan) -> dict[str, str]:
    return {
        "WORLD_SIZE": str(plan.world_size),
        "LOCAL_WORLD_SIZE": str(plan.ranks_per_node),
        "GROUP_WORLD_SIZE": str(len(plan.members)),
        "TORCHELASTIC_RUN_ID": f"{spec.run}.{plan.generation}",
        "TORCHELASTIC_RESTART_COUNT": str(plan.restarts),
        "TORCHELASTIC_USE_AGENT_STORE": str(plan.agent_store),
    }


def seat(plan: RankPlan, local_rank: int) -> dict[str, str]:
    """Return what only one rank gets."""
    return {"RANK": str(plan.rank(local_rank)), "LOCAL_RANK": str(local_rank)}
