"""What agents of one attempt say to each other: their whole state, asked for and told.

A word is a level, not an event: it carries everything the sender wants known, so that a lost word
is made good by the next, a repeated one changes nothing, and one that comes late is recognised by
its count. `number` is chosen by whoever asks and repeated by whoever tells: it says which question
an answer answers, so that a round counts only answers given in it.

Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from orchestrator.errors import PermanentError
from orchestrator.runtime import grants, lineage
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Because, Cause, Generation, Member


class BadWordError(PermanentError):
    """A peer said something that this version cannot read."""


class Phase(str, Enum):
    """What there is of ranks on a node."""

    CLEAR = "clear"  #: nothing runs, and that is proven
    RUNNING = "running"
    ENDING = "ending"
    FINISHED = "finished"  #: every rank of this node ended with exit code 0


@dataclass(frozen=True)
class Trouble:
    """Why a generation cannot go on. `at` is in seconds since the epoch, on the finder's clock."""

    mark: str  #: of the generation
    because: Because
    at: float


@dataclass(frozen=True)
class Status:
    """The whole state of one agent, as far as its peers need it."""

    member: Member
    born: float  #: when this agent process began, seconds since the epoch; a later one replaces it
    count: int  #: grows with every status of this life
    grant: int  #: number of the highest grant accepted; 0 for none
    ready: bool  #: it read the register in this life (or the run has none) and may be named
    latest: int | None  #: seq of the last counted generation it knows
    phase: Phase
    mark: str | None  #: the generation whose ranks it has
    trouble: Trouble | None = None
    done: str | None = None  #: mark of the generation in which every rank of every member finished
    failed: str | None = None  #: mark of the generation after which a budget was spent
    reached: bool = True  #: its last try to read the register succeeded
    unsure: bool = False  #: it may have created a record without knowing
    stopping: bool = False  #: it was told to stop and is about to exit
    formed: Generation | None = None  #: a generation that has no record (yet)


@dataclass(frozen=True)
class Word:
    """A question or an answer; both carry the sender's status."""

    asks: bool  #: whether the receiver should tell its status
    number: int
    status: Status
    grant: Grant | None = None  #: handed on to a peer that seems to lack it


def encode(word: Word) -> dict[str, Any]:
    """Return the word as plain JSON types."""
    status = word.status
    body = dict(status.__dict__)  # shallow, for words are many
    body["member"] = dict(status.member.__dict__)
    if status.trouble is not None:
        body["trouble"] = asdict(status.trouble)
    if status.formed is not None:
        body["formed"] = json.loads(lineage.encode(status.formed))
    grant = None if word.grant is None else grants.encode(word.grant)
    return {"asks": word.asks, "number": word.number, "status": body, "grant": grant}


def decode(body: Any) -> Word:
    """Read a word; raises `BadWordError` on anything that is not one."""
    try:
        grant = body["grant"]
        return Word(
            asks=bool(body["asks"]),
            number=int(body["number"]),
            status=_status(body["status"]),
            grant=None if grant is None else grants.decode(grant),
        )
    except (KeyError, TypeError, ValueError, AttributeError, PermanentError) as error:
        raise BadWordError(f"not a peer's word: {error!r}") from error


def _status(body: Mapping[str, Any]) -> Status:
    fields = {name: body[name] for name in Status.__dataclass_fields__ if name in body}
    fields["member"] = _member(fields["member"])
    fields["phase"] = Phase(fields["phase"])
    fields["count"], fields["born"] = int(fields["count"]), float(fields["born"])
    if fields.get("trouble") is not None:
        fields["trouble"] = _trouble(fields["trouble"])
    formed = fields.get("formed")
    if formed is not None:
        record = lineage.decode(json.dumps(formed).encode(), seq=formed["seq"])
        if not isinstance(record, Generation):
            raise BadWordError("what was formed is not a generation")
        fields["formed"] = record
    return Status(**fields)


def _member(body: Mapping[str, Any]) -> Member:
    port = int(body["port"])
    if not 0 < port < 65_536:
        raise BadWordError(f"port {port}")
    return Member(str(body["node"]), str(body["host"]), port)


def _trouble(body: Mapping[str, Any]) -> Trouble:
    because = dict(body["because"])
    because["cause"] = Cause(because["cause"])
    return Trouble(str(body["mark"]), Because(**because), float(body["at"]))
