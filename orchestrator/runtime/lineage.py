"""The records of a run's commit register, and which of them count.

A run has one register: an append-only sequence of small records, each created exclusively (see
`register.py` for the touching). A record is a *fence* (a new attempt begins), a *generation* (the
gang formed anew inside an attempt) or a *commit* (a checkpoint became durable). **Readers decide
what counts, whatever the writer believed**: `Lineage.read` is that decision, and the agents, the
controller, the vault, the simulator and the command line all use this one function.

Pure, standard library only, Python 3.10: no clock, no disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Union

from orchestrator.errors import PermanentError

VERSION = 1  #: of the records' wire format


class Cause(str, Enum):
    """Why a generation had to be formed. Retry budgets are kept per cause."""

    START = "start"  #: the first of its attempt
    RANK_EXIT = "rank-exit"  #: a rank ended with an error or by a signal
    RANK_STOPPED = "rank-stopped"  #: a rank was stopped (state T, frozen) on two looks
    HANG = "hang"  #: no progress within the learned or declared limit
    NODE_LOST = "node-lost"  #: a member's agent is silent or proven gone
    GRANT = "grant"  #: the controller granted other nodes (eviction, swap)
    VERIFICATION = "verification"  #: the checkpoint named by the last generation did not verify
    JOIN_FAILED = "join-failed"  #: not every member of the last record joined it in time


class BadRecordError(PermanentError):
    """A register record that this version cannot read; it is never skipped silently."""


@dataclass(frozen=True)
class Because:
    """How the generation before ended: what the next one learns from it."""

    cause: Cause
    step: int | None = None  #: the last step that the failed rank reported
    fingerprint: str = ""  #: equal for equal failures, e.g. "exit 1: ValueError: bad batch"
    node: str = ""
    rank: int | None = None
    commit: int | None = None  #: seq of the commit that failed verification

    def repeats(self, other: Because | None) -> bool:
        """Say whether this is the same failure at the same step (poison, if twice).

        Ranks that die before their first step say nothing of the checkpoint if it is the same node
        each time: a node with a broken GPU does that until somebody evicts it, and must not lead
        the gang down to nothing, a checkpoint for each restart.
        """
        if other is None or self.cause not in (Cause.RANK_EXIT, Cause.HANG):
            return False
        same = (self.cause, self.step, self.fingerprint)
        if same != (other.cause, other.step, other.fingerprint):
            return False
        return self.step is not None or self.node != other.node


@dataclass(frozen=True)
class Member:
    """One node of a generation and where its agent listens; list order is the group rank."""

    node: str
    host: str
    port: int

    def __hash__(self) -> int:
        """Hash the name alone: sets of members are what machines look at all the time."""
        return hash(self.node)


@dataclass(frozen=True)
class Fence:
    """A new attempt: whatever an older one writes after this is void."""

    seq: int
    nonce: str
    token: int  #: the controller's lease token
    attempt: int
    at: float  #: seconds since the epoch on the writer's clock; for people, never for order
    by: str = "controller"


@dataclass(frozen=True)
class Generation:
    """A formation of the gang inside one attempt."""

    seq: int
    nonce: str
    under: int  #: seq of its fence
    after: int | None  #: seq of the generation before, under the same fence
    number: int  #: 1, 2, ... within the attempt
    grant: int
    members: tuple[Member, ...]
    store: str  #: "host:port" of its rendezvous store (or of the free port for the ranks)
    resume: int | None  #: seq of the commit that every member loads; None starts from nothing
    why: str  #: why that commit, in words
    because: Because
    at: float
    by: str
    held: bool = False  #: a store process of the first member listens at `store`

    @cached_property
    def mark(self) -> str:
        """What tells this formation from any other; the port of its store is new each time."""
        return f"{self.seq}@{self.store}"


@dataclass(frozen=True)
class Commit:
    """A checkpoint that became visible. Its bytes lie in the vault, named by the manifest."""

    seq: int
    nonce: str
    under: int  #: seq of its generation
    step: int
    parent: int | None  #: seq of the commit this state descends from
    manifest: str  #: key of the manifest in the vault
    digest: str  #: SHA-256 of the manifest's bytes, hex
    at: float
    by: str


Record = Union[Fence, Generation, Commit]
_KINDS: dict[str, type] = {"fence": Fence, "generation": Generation, "commit": Commit}


def encode(record: Record) -> bytes:
    """Return the record's wire form: one JSON object, sorted keys, a newline."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(record, cls))
    body = {"version": VERSION, "kind": kind, **asdict(record)}
    return (json.dumps(body, sort_keys=True, ensure_ascii=False) + "\n").encode()


def decode(data: bytes, *, seq: int) -> Record:
    """Read one record; `seq` is the number its name claims.

    Raises `BadRecordError` if it is not a record of a known kind and version, or says another seq.
    """
    try:
        body = json.loads(data)
        version, kind = body.pop("version"), body.pop("kind")
        if version != VERSION or body["seq"] != seq:
            raise BadRecordError(
                f"register record {seq}: version {version}, seq {body.get('seq')}; "
                f"this program reads version {VERSION}"
            )
        return _build(kind, body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRecordError(f"register record {seq} cannot be read: {error}") from error


def _build(kind: str, body: dict[str, Any]) -> Record:
    if kind == "generation":
        body["members"] = tuple(Member(**member) for member in body["members"])
        because = dict(body["because"])
        body["because"] = Because(**{**because, "cause": Cause(because["cause"])})
    record: Record = _KINDS[kind](**body)
    return record


@dataclass(frozen=True)
class Void:
    """A record that does not count, and why; it is reported, never resumed from."""

    record: Record
    reason: str


@dataclass(frozen=True)
class Lineage:
    """What a register's records amount to, read in order."""

    fence: Fence | None = None  #: the last fence that counts
    generation: Generation | None = None  #: the last generation that counts, of any attempt
    generations: tuple[Generation, ...] = ()  #: all that count, oldest first
    commits: tuple[Commit, ...] = ()  #: all that count, oldest first
    void: tuple[Void, ...] = ()
    next_seq: int = 1

    @classmethod
    def read(cls, records: Iterable[Record]) -> Lineage:
        """Fold records in the order of their seq into what counts.

        Raises `BadRecordError` if the sequence has a gap: a missing record could be a fence.
        """
        lineage = cls()
        for record in records:
            lineage = lineage.then(record)
        return lineage

    def then(self, record: Record) -> Lineage:
        """Return the lineage after one more record."""
        if record.seq != self.next_seq:
            raise BadRecordError(
                f"the register has a gap: expected seq {self.next_seq}, found {record.seq}"
            )
        changes: dict[str, Any] = {"next_seq": self.next_seq + 1}
        reason = self._objection(record)
        if reason is not None:
            changes["void"] = (*self.void, Void(record, reason))
        elif isinstance(record, Fence):
            changes["fence"] = record
        elif isinstance(record, Generation):
            changes["generation"] = record
            changes["generations"] = (*self.generations, record)
        else:
            changes["commits"] = (*self.commits, record)
        return Lineage(**{**self._fields(), **changes})

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def _objection(self, record: Record) -> str | None:
        """Say why a record does not count; None if it does."""
        if isinstance(record, Fence):
            return self._object_to_fence(record)
        if isinstance(record, Generation):
            return self._object_to_generation(record)
        if record.under != self.ruler:
            return f"under record {record.under}, but {self.ruler} rules"
        return None

    def _object_to_fence(self, fence: Fence) -> str | None:
        last = self.fence
        if last is not None and fence.token < last.token:
            return f"token {fence.token} is below {last.token}"
        expected = 1 if last is None else last.attempt + 1
        if fence.attempt != expected:
            return f"attempt {fence.attempt}, but {expected} is next"
        return None

    def _object_to_generation(self, generation: Generation) -> str | None:
        if self.fence is None or generation.under != self.fence.seq:
            return f"under fence {generation.under}, not the last that counts"
        latest = self.latest
        if generation.after != (None if latest is None else latest.seq):
            return f"after {generation.after}, not the last generation that counts"
        return None

    @cached_property
    def latest(self) -> Generation | None:
        """The last generation that counts under the last fence; None right after a fence."""
        if self.fence is None or self.generation is None:
            return None
        return self.generation if self.generation.under == self.fence.seq else None

    @property
    def ruler(self) -> int | None:
        """Seq of the fence or generation that commits must be under to count."""
        if self.fence is None:
            return None
        latest = self.latest
        return self.fence.seq if latest is None else latest.seq

    @property
    def attempt(self) -> int:
        """Number of the attempt that the last fence opened; 0 before the first."""
        return 0 if self.fence is None else self.fence.attempt

    def commit(self, seq: int | None) -> Commit | None:
        """Return the counted commit with this seq."""
        return next((c for c in self.commits if c.seq == seq), None)

    @property
    def head(self) -> Commit | None:
        """The commit a next generation resumes from if nothing speaks against it.

        The last counted commit, unless the last counted generation stepped down to an older one
        and has committed nothing since: then that older one.
        """
        since = self.generation
        if since is None:
            return self.commits[-1] if self.commits else None
        newer = [commit for commit in self.commits if commit.seq > since.seq]
        return newer[-1] if newer else self.commit(since.resume)

    def fruitless(self) -> tuple[Generation, ...]:
        """Return this attempt's generations since a commit last reached a step that was new.

        Retry budgets are kept on these: a run of months may fail as often as it likes while it gets
        on, and one that repeats itself ends.
        """
        if self.fence is None:
            return ()
        since, reached = self.fence.seq, -1
        for commit in self.commits:
            if commit.step > reached:
                since, reached = max(since, commit.seq), commit.step
        return tuple(one for one in self.generations if one.seq > since)


def choose_resume(lineage: Lineage, because: Because) -> tuple[int | None, str]:
    """Return (seq of the commit to resume from, why) for a generation formed `because`.

    Falls back along `parent`, never by seq - 1, in two cases: the head did not verify, or the same
    failure happened twice at the same step (poison: Megatron-LM #5281 restarted 44 times).
    """
    head = lineage.head
    if head is None:
        return None, "nothing was committed yet"
    if because.cause is Cause.VERIFICATION and because.commit == head.seq:
        return _step_down(lineage, head, f"commit {head.seq} did not verify")
    last = lineage.generation
    if last is not None and because.repeats(last.because):
        twice = f"the same failure twice at step {because.step}: {because.fingerprint}"
        return _step_down(lineage, head, twice)
    return head.seq, f"the last commit that counts (step {head.step})"


def _step_down(lineage: Lineage, head: Commit, reason: str) -> tuple[int | None, str]:
    parent = lineage.commit(head.parent)
    if parent is None:
        return None, f"{reason}; no older commit is left, starting from nothing"
    return parent.seq, f"{reason}; stepped down to its parent {parent.seq} (step {parent.step})"


def summary(lineage: Lineage) -> Mapping[str, Any]:
    """Return the few facts that reports and people want, as plain JSON types."""
    latest = lineage.latest
    return {
        "attempt": lineage.attempt,
        "generation": None if latest is None else latest.number,
        "commits": len(lineage.commits),
        "step": lineage.commits[-1].step if lineage.commits else None,
        "void": len(lineage.void),
    }
