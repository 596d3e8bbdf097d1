"""The ranks of one generation on one node: started, watched, ended and proven gone.

Signatures first; see the commit after this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from orchestrator.runtime.lineage import Because, Member
from orchestrator.runtime.place import Place
from orchestrator.runtime.reports import RankReport
from orchestrator.runtime.spec import AgentSpec


@dataclass(frozen=True)
class RankPlan:
    """What the ranks of one generation on this node are started with."""

    generation: int  #: number within the attempt
    generation_seq: int
    members: tuple[Member, ...]
    group_rank: int
    ranks_per_node: int
    world_size: int
    master_addr: str
    master_port: int
    agent_store: bool  #: a store process holds the port
    resume: Optional[int]  #: seq of the commit to load
    restarts: int  #: TORCHELASTIC_RESTART_COUNT


@dataclass(frozen=True)
class Jot:
    """A note without a number: the agent numbers it and makes it a `reports.Note`."""

    at: float
    kind: str
    text: str
    data: Mapping[str, Any]


class Ranks:
    """The processes of one generation on this node. One object may be started again and again."""

    def __init__(self, spec: AgentSpec, place: Place) -> None:
        raise NotImplementedError

    def start(self, plan: RankPlan) -> None:
        raise NotImplementedError

    def look(self, now: float) -> tuple[RankReport, ...]:
        raise NotImplementedError

    @property
    def trouble(self) -> Optional[Because]:
        raise NotImplementedError

    @property
    def ended_at(self) -> Optional[float]:
        raise NotImplementedError

    @property
    def finished(self) -> bool:
        raise NotImplementedError

    def end(self, now: float, why: str) -> None:
        raise NotImplementedError

    @property
    def gone(self) -> bool:
        raise NotImplementedError

    def drain_notes(self) -> list[Jot]:
        raise NotImplementedError

    def limits(self) -> dict[str, float]:
        raise NotImplementedError
