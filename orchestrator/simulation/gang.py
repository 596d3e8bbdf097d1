"""What the world asks of a gang: the agents of one attempt, and the ranks under them.

Two kinds keep this protocol. `brief.BriefGang` forms a generation in one event, with the declared
times, and decides who is in it with the very rules of `runtime.rounds`: for years of large gangs.
`full.FullGang` runs `runtime.membership` itself, message by message: for what must never happen.
"""

from __future__ import annotations

from typing import Protocol

from orchestrator.core.nodes import NodeName
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.reports import AgentReport
from orchestrator.simulation.machine import Run, SimAgent
from orchestrator.simulation.plan import Kind
from orchestrator.simulation.training import Training


class Gang(Protocol):
    """The agents of one attempt."""

    run: Run
    clock: Training

    @property
    def members(self) -> tuple[NodeName, ...]:
        """Nodes of the last generation."""
        ...

    @property
    def training(self) -> bool:
        """Whether steps are being made."""
        ...

    def began(self, agent: SimAgent) -> None:
        """Hear that an agent was started; a grant on its disk is in it already."""
        ...

    def ended(self, node: NodeName) -> None:
        """Hear that the agent of a node and its ranks are no more."""
        ...

    def give(self, node: NodeName, grant: Grant) -> str | None:
        """Give a grant to an agent; return its objection, if it has one."""
        ...

    def struck(self, node: NodeName, kind: Kind) -> None:
        """Hear that something befell a node's ranks or network, or that it is over."""
        ...

    def network_changed(self) -> None:
        """Hear that some nodes can or cannot speak with each other, or with a register, now."""
        ...

    def register_changed(self) -> None:
        """Hear that the register came, went, or was written by somebody else."""
        ...

    def confirmed(self, node: NodeName) -> None:
        """Hear that the controller keeps an answer of this agent."""
        ...

    def retune(self, interval: float) -> None:
        """Take another interval between durable checkpoints."""
        ...

    def close(self) -> None:
        """Bring the books up to now: the world ends here."""
        ...

    def report(self, node: NodeName) -> AgentReport:
        """Return what the agent of a node says of itself."""
        ...
