"""What a node is, and which moves between its states are lawful.

A *machine* is the provider's thing (instance id, serials, price); a *node* is our name for a role
on it, and `incarnation` counts how often the machine under that name was provisioned anew.
Reachability, cordon and verdict are fields of their own, never states: a node that cannot be
reached may be training happily.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from orchestrator.core.history import LOST, History, RepairStep
from orchestrator.errors import PermanentError

ProviderName = NewType("ProviderName", str)
ClusterName = NewType("ClusterName", str)
CohortName = NewType("CohortName", str)
NodeName = NewType("NodeName", str)
MachineId = NewType("MachineId", str)
JobName = NewType("JobName", str)


class NodeState(StrEnum):
    """Where a node stands between the provider's delivery and its return."""

    __hash__ = str.__hash__  # that of Enum is slow, and states are looked up all the time

    BURN_IN = "burn-in"  #: delivered or repaired; earning its trust
    PROBATION = "probation"  #: trusted a little: usable, watched more closely
    SPARE = "spare"  #: healthy and idle, ready to be swapped in
    STANDBY = "standby"  #: a spare inside a grant; the gang may take it without asking
    IN_USE = "in-use"  #: holds ranks of a running attempt
    DRAINING = "draining"  #: lets go of the ranks it holds; takes no new ones
    QUARANTINED = "quarantined"  #: suspected; only health checks may touch it
    REPAIRING = "repairing"  #: a step of the repair ladder is under way
    RETIRED = "retired"  #: returned to the provider for good


S = NodeState
# Every lawful move. Anything absent here is a bug in whoever asked for it.
MOVES: dict[NodeState, frozenset[NodeState]] = {
    S.BURN_IN: frozenset({S.PROBATION, S.SPARE, S.QUARANTINED, S.REPAIRING, S.RETIRED}),
    S.PROBATION: frozenset(
        {
            S.SPARE,
            S.STANDBY,
            S.IN_USE,
            S.DRAINING,
            S.BURN_IN,
            S.QUARANTINED,
            S.REPAIRING,
            S.RETIRED,
        }
    ),
    S.SPARE: frozenset({S.STANDBY, S.IN_USE, S.BURN_IN, S.QUARANTINED, S.REPAIRING, S.RETIRED}),
    S.STANDBY: frozenset({S.IN_USE, S.SPARE, S.PROBATION, S.DRAINING, S.QUARANTINED, S.REPAIRING}),
    S.IN_USE: frozenset({S.STANDBY, S.SPARE, S.PROBATION, S.DRAINING, S.QUARANTINED, S.REPAIRING}),
    S.DRAINING: frozenset({S.SPARE, S.PROBATION, S.QUARANTINED, S.REPAIRING, S.RETIRED}),
    S.QUARANTINED: frozenset({S.BURN_IN, S.REPAIRING, S.RETIRED}),
    S.REPAIRING: frozenset({S.BURN_IN, S.QUARANTINED, S.RETIRED}),
    S.RETIRED: frozenset(),
}
del S

#: States in which a node belongs to an attempt.
SEATED = frozenset({NodeState.IN_USE, NodeState.STANDBY, NodeState.DRAINING})
#: States of an idle node that may be seated.
IDLE = frozenset({NodeState.SPARE, NodeState.PROBATION})
#: States in which nothing of ours may begin on a node.
HELD_BACK = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING})


class UnlawfulMoveError(PermanentError):
    """A node was asked to go where no node may go from its state."""

    def __init__(self, node: NodeName, start: NodeState, end: NodeState) -> None:
        """Name the node and the move that was refused."""
        super().__init__(f"{node} cannot go from {start} to {end}")
        self.node, self.start, self.end = node, start, end


@dataclass(frozen=True, slots=True)
class Cordon:
    """Takes no new ranks, on somebody's word; only its owner may lift it."""

    owner: str  #: "operator:NAME" or "holdfast"
    reason: str
    since: datetime

    @property
    def personal(self) -> bool:
        """Say whether it is a person's."""
        return self.owner.startswith("operator:")


@dataclass(frozen=True, slots=True)
class Machine:
    """The provider's thing under a node, as its API or our inventory describes it."""

    id: MachineId
    sku: str = "local"
    accelerators: int = 0
    serials: tuple[str, ...] = ()
    price_per_hour: float | None = None  #: US dollars for the whole machine


@dataclass(frozen=True, slots=True)
class Former:
    """A machine that once stood under a name, and what it had gone through."""

    machine: Machine
    history: History
    until: datetime


FORMER_MAX = 8  #: machines remembered per name


@dataclass(frozen=True, slots=True)
class Node:
    """One node, as the ledger last recorded it."""

    name: NodeName
    cluster: ClusterName
    provider: ProviderName
    cohort: CohortName
    machine: Machine
    state: NodeState
    since: datetime  #: when it entered `state`
    reason: str  #: why it did
    incarnation: int = 1
    job: JobName | None = None  #: the job whose attempt it is seated in (states SEATED)
    attempt: int | None = None
    cordon: Cordon | None = None
    pardoned_at: datetime | None = None  #: released, or another machine: older findings are history
    trial_since: datetime | None = None  #: on probation since, idle or seated; None: trusted
    step: RepairStep | None = None  #: of the ladder, while it is under way (REPAIRING)
    history: History = field(default_factory=History)  #: of its machine
    former: tuple[Former, ...] = ()  #: machines that stood under this name before
    kin: NodeName | None = None  #: the name that its machine came back from
    accepted_at: datetime | None = None  #: passed its last burn-in
    served: timedelta = timedelta(0)  #: time IN_USE since then, without the present stay
    swapped_at: datetime | None = None  #: its provider changed a part of its machine

    @property
    def rest(self) -> NodeState:
        """Say in which state it is idle: a seat neither wins nor loses trust."""
        return NodeState.SPARE if self.trial_since is None else NodeState.PROBATION

    @property
    def held(self) -> bool:
        """Say whether it is held back by us, and not by a person's cordon."""
        personal = self.cordon is not None and self.cordon.personal
        return self.state in HELD_BACK and not personal

    @property
    def held_on_judgement(self) -> bool:
        """Say whether it is held back for what was found or suspected, not for lost power."""
        troubles = self.history.troubles
        return self.held and not (troubles and troubles[-1].fault == LOST)

    def move(self, end: NodeState, *, at: datetime, reason: str) -> Node:
        """Return this node in its next state, or raise `UnlawfulMoveError`.

        A node that leaves its seat (`SEATED`) forgets the attempt it belonged to. Probation begins
        when it is entered from burn-in and goes on through every seat; what ends it is an idle
        node's step to SPARE, a step back to burn-in or being held back (unless as one of a group
        of suspects, see `enact`: an accusation alone neither wins nor loses trust).
        """
        if end not in MOVES[self.state]:
            raise UnlawfulMoveError(self.name, self.state, end)
        seated = end in SEATED
        accepted = self.state is NodeState.BURN_IN and end in IDLE
        serving = self.state is NodeState.IN_USE and self.accepted_at is not None
        stay = at - self.since if serving else timedelta(0)
        return replace(
            self,
            state=end,
            since=at,
            reason=reason,
            job=self.job if seated else None,
            attempt=self.attempt if seated else None,
            trial_since=self._trial(end, at),
            step=None,
            accepted_at=at if accepted else self.accepted_at,
            served=timedelta(0) if accepted else self.served + stay,
        )

    def _trial(self, end: NodeState, at: datetime) -> datetime | None:
        if end is NodeState.PROBATION:
            return self.trial_since or at
        checked = (self.state, end) == (NodeState.QUARANTINED, NodeState.BURN_IN)
        return self.trial_since if end in SEATED or checked else None
