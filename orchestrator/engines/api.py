"""What every engine does: put one guard with its agent on a granted node, and find it again.

An engine decides nothing. Ranks are children of the agent, never workers of the engine; the same
program runs on the node whatever engine put it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.runtime.ranklogs import Piece, Which
from orchestrator.runtime.spec import AgentSpec


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """Where an agent listens."""

    host: str
    port: int
    agent: str  #: nonce of the agent process


@dataclass(frozen=True, slots=True)
class Found:
    """What is on a node of one attempt."""

    agent: AgentAddress | None  #: alive, as far as the node itself can tell
    gone: dict[str, Any] | None  #: the proof that nothing is left, if there is one
    boot_id: str


class Engine(Protocol):
    """Starts, finds and sweeps agents. Every call raises `TransientError` if the node is silent."""

    def start(self, node: str, spec: AgentSpec) -> AgentAddress:
        """Start the agent of an attempt, or find the one that runs; never a second one."""
        ...

    def find(self, node: str, run: str) -> Found:
        """Say what of `run` (JOB.ATTEMPT) is on the node."""
        ...

    def sweep(self, node: str, run: str, token: int) -> dict[str, Any]:
        """Kill what is left of `run` on the node and return the proof."""
        ...

    def examine(
        self, node: str, argv: Sequence[str], token: int, limit: float
    ) -> tuple[bytes, bool]:
        """Run a command that work ends at once: its output, and whether it was ended so.

        Raises `TransientError` if an agent is on the node already.
        """
        ...

    def logs(self, node: str, run: str, wanted: Mapping[Which, int] | None) -> list[Piece]:
        """Name the logs that ranks of `run` wrote on the node, or read some from a byte on.

        `wanted` maps (generation, rank) to the first byte; below zero it counts from the end. All
        pieces together are of at most `ranklogs.ANSWER_BYTES`.
        """
        ...
