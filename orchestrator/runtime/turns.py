"""What the machine of membership is told, and what it wants done: the border of `membership.py`.

Whoever runs the machine (the agent, the simulator, a test) feeds it `Given`s in the order they
happen and carries out the `Wish`es in the order they are returned. A wish may be carried out and
its answer lost with the process: every wish is safe to be lost or to be made again.

Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Because, Generation, Lineage, Member
from orchestrator.runtime.words import Word


@dataclass(frozen=True)
class Terms:
    """What does not change in an agent's life. Durations in seconds."""

    job: str
    attempt: int
    member: Member  #: this node, and where its agent listens
    born: float  #: when the agent began, seconds since the epoch
    register: bool = True  #: the run has a commit register
    stop_after: float | None = None  #: `when_alone: stop_after`; None continues for ever
    join_limit: float = 10.0  #: for members to join, and for granted nodes to be ready at a start
    minority_wait: float = 5.0  #: extra wait of a side with fewer than half of the members
    settle: float = 0.3  #: in which the first failure is looked for among the members
    answer_limit: float = 1.5  #: after which a round does without those that do not answer
    mute_after: float = 5.0  #: a peer whose connection stands but that says nothing is silent
    clear_limit: float = 60.0  #: for the ranks of a member to be proven gone
    turn: float = 2.0  #: how much longer each next member waits before it proposes
    ask_every: float = 0.25  #: while a generation is formed
    ping_every: float = 0.5  #: between leader and members
    standby_every: float = 1.0  #: from the leader to standbys
    read_every: float = 1.0  #: reads of the register
    register_limit: float = 5.0  #: without the register before a gang re-forms without it
    stop_hold: float = 15.0  #: how long peers wait for a member that was told to stop


# ---- what it is told -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Granted:
    """A grant that `Membership.objection` had nothing against, and that is on disk."""

    grant: Grant


@dataclass(frozen=True)
class Heard:
    """A peer's word came."""

    word: Word


@dataclass(frozen=True)
class Broken:
    """A peer's agent cannot be connected to. Silence, not death."""

    member: Member


@dataclass(frozen=True)
class Gone:
    """It is proven that nothing of the attempt runs on a node any more."""

    member: Member


@dataclass(frozen=True)
class Read:
    """The register was read."""

    lineage: Lineage
    began_at: float  #: on the machine's clock


@dataclass(frozen=True)
class Unread:
    """The register did not answer in time."""

    error: str


@dataclass(frozen=True)
class Appended:
    """The record that was wished for exists; `lineage` ends with it."""

    lineage: Lineage


@dataclass(frozen=True)
class Overtaken:
    """Somebody else holds that place in the register."""

    lineage: Lineage


@dataclass(frozen=True)
class Unsure:
    """It is not known whether the record was created."""

    error: str


@dataclass(frozen=True)
class Bound:
    """A port for the next generation's store is ready."""

    port: int
    held: bool  #: by a store process; else it is only free


@dataclass(frozen=True)
class RanksTroubled:
    """Ranks of this node ended, were stopped or hang."""

    because: Because
    at: float  #: seconds since the epoch


@dataclass(frozen=True)
class RanksFinished:
    """Every rank of this node ended with exit code 0."""


@dataclass(frozen=True)
class RanksGone:
    """Nothing of the ranks of this node is left, proven."""


@dataclass(frozen=True)
class Confirmed:
    """The controller has the answer that was sent at `sent_at` (machine's clock)."""

    sent_at: float


@dataclass(frozen=True)
class StopAsked:
    """The controller wants this agent to end its ranks and go."""

    reason: str


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Given = Union[
    Granted,
    Heard,
    Broken,
    Gone,
    Read,
    Unread,
    Appended,
    Overtaken,
    Unsure,
    Bound,
    RanksTroubled,
    RanksFinished,
    RanksGone,
    Confirmed,
    StopAsked,
    Tick,
]

# ---- what it wants done --------------------------------------------------------------------------


@dataclass(frozen=True)
class Send:
    """Say a word to a peer; it may get lost."""

    to: Member
    word: Word


@dataclass(frozen=True)
class KeepGrant:
    """Persist a grant that a peer handed on, then feed it back as `Granted`."""

    grant: Grant


@dataclass(frozen=True)
class ReadRegister:
    """Read the register; answer with `Read` or `Unread`, within a limit."""


@dataclass(frozen=True)
class BindStore:
    """Get a port for the next generation; answer with `Bound`."""


@dataclass(frozen=True)
class Append:
    """Create this record after `lineage`; answer with `Appended`, `Overtaken` or `Unsure`.

    The runner fills in nonce and time of the draft.
    """

    draft: Generation
    lineage: Lineage


@dataclass(frozen=True)
class StartRanks:
    """Start this node's ranks of a generation."""

    generation: Generation


@dataclass(frozen=True)
class EndRanks:
    """End them; answer with `RanksGone` when it is proven.

    With `keep`, a rank that can leave the generation by itself may stay as a survivor: it counts as
    gone once it has left, and must be ended when `Membership.may_go_on` turns false.
    """

    why: str
    keep: bool = False


@dataclass(frozen=True)
class Tell:
    """Note something for the controller (see `reports.Note`)."""

    kind: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


Wish = Union[Send, KeepGrant, ReadRegister, BindStore, Append, StartRanks, EndRanks, Tell]
