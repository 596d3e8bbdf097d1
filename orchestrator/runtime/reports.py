"""What an agent says of itself when the controller asks: the wire types of the slower loop.

A report is a level, not an event: the whole present state of one agent, plus the notes it wrote
since the cursor that the controller confirmed. Everything a node says is untrusted input: the
reader checks sizes and types here and translates failure into `BadReportError`.

Standard library only, Python 3.10. The reader ignores unknown keys of the same version, so that a
daemon adopts gangs started by the version before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

from orchestrator.errors import PermanentError
from orchestrator.runtime.paces import ROLE_MAX, SECONDS_MAX, STEPS

PROTOCOL = 1  #: of reports and requests between controller and agents
NOTES_MAX = 200  #: notes in one report; the rest follows with the next
TEXT_MAX = 4_000  #: characters in any one text of a report


class BadReportError(PermanentError):
    """A node said something that is not a report."""


class Stage(str, Enum):
    """Where an agent stands. `FINISHED` and `FAILED` are final for its attempt."""

    IDLE = "idle"  #: no grant, or a grant without a generation that names it
    FORMING = "forming"  #: a round to form a generation is under way
    RUNNING = "running"  #: its ranks run in the last counted generation
    STANDBY = "standby"  #: granted, healthy, outside the generation
    WAITING = "waiting"  #: cannot form within its grant; needs a new one
    REVOKED = "revoked"  #: its seat was taken away; its ranks are proven gone
    FINISHED = "finished"  #: every rank of the generation ended with exit code 0
    FAILED = "failed"  #: budgets are spent, or the job cannot be started at all


class RankState(str, Enum):
    """What the kernel says of one rank's process."""

    RUNNING = "running"
    STOPPED = "stopped"  #: state T or a frozen cgroup
    EXITED = "exited"
    GONE = "gone"  #: proven: swept, nothing of it is left


@dataclass(frozen=True)
class RankReport:
    """One rank of this node."""

    rank: int
    local_rank: int
    pid: int | None
    state: RankState
    phase: str = ""  #: init, compile, step, checkpoint, evaluate
    step: int | None = None  #: last completed
    step_at: float | None = None  #: epoch seconds on the node's clock
    loss: float | None = None
    tokens_per_second: float | None = None
    data_wait: float | None = None  #: share of the last step spent waiting for samples
    exit_code: int | None = None  #: negative: ended by that signal
    own: tuple[float, ...] = ()  #: seconds of the last steps without waiting for peers, newest last
    own_step: int | None = None  #: the step of the newest of them
    role: str = ""  #: ranks of different roles are not compared


@dataclass(frozen=True)
class Note:
    """Something an agent did or saw, once. The controller records it as an event.

    `kind` is one of: agent-started, grant-accepted, grant-refused, generation-formed,
    generation-void, rank-exited, rank-stopped, suspected (a stall, with stacks in `data`), hang,
    peer-lost, cold-start (though a preload was named), not-kept (a survivor did not leave in time),
    recovered (from which rung), partner-copy (a standby keeps snapshots), partner-copy-failed,
    replicated (a replica keeps a checkpoint), replica-behind (by more than the RPO),
    commit, commit-failed, verification-failed, resumed, waiting (too few nodes to form),
    ranks-ended (how far the generation came: first and last step with their moments, seconds of
    checkpoint stalls; from its first two members only), finished, failed, stopped, alone,
    foreign-fence. Older agents say neither waiting nor ranks-ended.
    """

    number: int  #: 1, 2, ... per agent process
    at: float  #: epoch seconds on the node's clock
    kind: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentReport:
    """The whole present state of one agent."""

    protocol: int
    node: str
    job: str
    attempt: int
    agent: str  #: nonce of this agent process: another one is another life
    boot_id: str
    pid: int
    host: str
    port: int
    at: float  #: epoch seconds on the node's clock when the report was made
    started_at: float
    stage: Stage
    grant: int  #: number of the highest grant accepted; 0 for none
    token: int  #: highest controller token accepted
    generation: int | None  #: number of the generation it runs in
    generation_seq: int | None
    members: tuple[str, ...]  #: nodes of the last counted generation it knows
    peers_lost: tuple[str, ...]  #: granted nodes that do not answer its pings
    ranks: tuple[RankReport, ...]
    notes: tuple[Note, ...]
    findings: tuple[Mapping[str, Any], ...] = ()  #: wire form of `healthchecks.findings`
    limits: Mapping[str, float] = field(default_factory=dict)  #: hang limit per phase, seconds
    failure: Mapping[str, Any] = field(default_factory=dict)  #: last `Because`, plain types
    warmth: str = ""  #: how ranks start here: "warm: torch", "cold: WHY"; "" without preload


def encode(report: AgentReport) -> dict[str, Any]:
    """Return the report as plain JSON types."""
    return asdict(report)


def decode(body: Any) -> AgentReport:
    """Read a report from a node; raises `BadReportError` on anything that is not one."""
    try:
        if body["protocol"] != PROTOCOL:
            raise BadReportError(f"protocol {body['protocol']}; this controller speaks {PROTOCOL}")
        known = _known(AgentReport, body)
        known["stage"] = Stage(known["stage"])
        known["members"] = tuple(map(str, known["members"]))
        known["peers_lost"] = tuple(map(str, known["peers_lost"]))
        known["ranks"] = tuple(_rank(rank) for rank in known["ranks"])
        known["notes"] = tuple(_note(note) for note in known["notes"][:NOTES_MAX])
        known["findings"] = tuple(dict(finding) for finding in known.get("findings", ()))
        return AgentReport(**known)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadReportError(f"not an agent's report: {error!r}") from error


#: What a field of this annotation may hold. JSON's true is a Python int: it is refused as one.
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "str": (str,),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, float]": (dict,),
}


def _known(cls: type, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `body` that `cls` has; raises `TypeError` for a wrong type."""
    known = {}
    for one in fields(cls):
        if one.name not in body:
            continue
        value, wanted = body[one.name], _TYPES.get(str(one.type))
        if wanted is not None and (isinstance(value, bool) or not isinstance(value, wanted)):
            raise TypeError(f"{one.name}: expected {one.type}, got {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            if "None" not in str(one.type):
                raise TypeError(f"{one.name}: not a finite number")
            value = None  # a loss that diverged is not known
        known[one.name] = value
    return known


def _rank(body: Mapping[str, Any]) -> RankReport:
    known = _known(RankReport, body)
    known["own"] = _seconds(known.get("own", ()))
    known["role"] = known.get("role", "")[:ROLE_MAX]
    return RankReport(**{**known, "state": RankState(known["state"])})


def _seconds(values: Any) -> tuple[float, ...]:
    """Read the own times of a rank's steps; raises `TypeError` for what cannot be some."""
    if not isinstance(values, (list, tuple)) or len(values) > STEPS:
        raise TypeError(f"own: not a list of at most {STEPS} numbers")
    for value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < SECONDS_MAX:
            raise TypeError(f"own: not seconds: {value!r:.40}")
    return tuple(map(float, values))


def _note(body: Mapping[str, Any]) -> Note:
    known = _known(Note, body)
    known["kind"], known["text"] = str(known["kind"])[:40], str(known["text"])[:TEXT_MAX]
    return Note(**known)
