"""Who holds up a gang that stalls: the stacks and records of all its ranks, judged together.

Each agent tells the stack of a rank whose silence is suspicious, and the last collectives that it
entered. As soon as all ranks are silent and all stacks are there, the one that did not enter what
the others wait in (without records: that is elsewhere by its stack) is named, with its node and its
stack. Nobody is ended or accused for it: a rank stuck in its own code says
nothing about its node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from healthchecks.hangs import frames, judge_records
from orchestrator.core.assess import STALL
from orchestrator.core.beliefs import AgentBelief
from orchestrator.core.gang import live
from orchestrator.core.jobs import Attempt
from orchestrator.core.look import Look
from orchestrator.core.nodes import NodeName
from orchestrator.runtime.reports import Note, Stage

FRAMES = 6  #: of the culprit's stack, the innermost
EPOCH_MAX = 4e9  #: seconds; a later moment is none
LATELY = 600.0  #: seconds before a generation in which a stall may have ended the one before


@dataclass(slots=True)
class Stall:
    """What the ranks of one gang do while they make no step."""

    ranks: int = 0  #: of the gang, as far as agents told
    stacks: dict[int, str] = field(default_factory=dict)
    records: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  #: of collectives
    places: dict[int, NodeName] = field(default_factory=dict)
    since: float = 0.0  #: on the nodes' clocks: the last rank fell silent

    @property
    def whole(self) -> bool:
        """Say whether all ranks stall, and each told its stack."""
        return self.ranks > 1 and len(self.stacks) >= self.ranks

    def take(self, rank: int, note: Note, node: NodeName) -> None:
        """Take in what an agent told of a rank that stalls."""
        self.stacks[rank], self.places[rank] = str(note.data["stack"]), node
        self.records[rank] = _records(note.data.get("collectives"))

    def culprit(self) -> str | None:
        """Return in words which rank holds the others up; None if it is not clear."""
        if not self.whole:
            return None
        found = judge_records(self.records, self.stacks)
        if not found.ranks:
            return None
        first = found.ranks[0]
        inner = " < ".join(frames(self.stacks[first])[:FRAMES])
        return f"{self.places[first]}: {found.reason}; stack: {inner}"


def who_stalls(look: Look, attempt: Attempt) -> str | None:
    """Return in words which rank holds the others up; None if it is not clear, or not all stall."""
    return stall(look, attempt).culprit()


def who_stalled(look: Look, attempt: Attempt) -> str | None:
    """Return in words which rank held up the generation before; None if that was not clear."""
    found = Stall()
    for name, agent in _running(look, attempt):
        formed = _formed(agent)
        if formed is None or agent.report is None:
            continue
        found.ranks += len(agent.report.ranks)
        for rank, note in _stalls(agent):
            if note.number < formed.number and note.at > formed.at - LATELY:
                found.take(rank, note, name)
    return found.culprit()


def stall(look: Look, attempt: Attempt) -> Stall:
    """Return what is known of a stall that lasts."""
    found = Stall()
    for name, agent in _running(look, attempt):
        if agent.report is None:
            continue
        stepped = {one.rank: one.step_at for one in agent.report.ranks}
        formed = _formed(agent)
        found.ranks += len(stepped)
        for rank, note in _stalls(agent):
            if rank not in stepped or (formed is not None and note.number < formed.number):
                continue
            at = stepped[rank]
            if at is None or at <= note.at:  # both on the node's clock
                found.take(rank, note, name)
                found.since = max(found.since, note.at)
    return found


def _running(look: Look, attempt: Attempt) -> Iterator[tuple[NodeName, AgentBelief]]:
    for name, agent in look.agents(attempt):
        if agent.report is not None and live(agent) and agent.report.stage is Stage.RUNNING:
            yield name, agent


def _stalls(agent: AgentBelief) -> Iterator[tuple[int, Note]]:
    for note in agent.notes:
        rank, stack = note.data.get("rank"), note.data.get("stack")
        if not isinstance(rank, int) or not isinstance(stack, str):
            continue
        if note.kind == STALL and 0 < note.at < EPOCH_MAX:
            yield rank, note


def _records(told: Any) -> list[dict[str, Any]]:
    """Read a rank's last records of collectives: a node said this, what is none is left out."""
    return [one for one in told if _is_record(one)] if isinstance(told, list) else []


def _is_record(one: Any) -> bool:
    if not isinstance(one, dict):
        return False
    words = all(isinstance(one.get(name), str) for name in ("group", "operation"))
    counts = [one.get(name) for name in ("sequence", "size")]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**53 for n in counts)
    return words and whole and isinstance(one.get("entered"), (int, float))


def _formed(agent: AgentBelief) -> Note | None:
    known = [one for one in agent.notes if one.kind == "generation-formed"]
    return max(known, key=lambda one: one.number, default=None)
