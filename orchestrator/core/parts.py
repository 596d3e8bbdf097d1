"""Parts of a look that need not be thought again, and what each of them rested on.

`reconcile` is a list of phases; each does the same work for every node, job, attempt or cluster.
One such piece of work is a *part*. While a part runs, the accessors of `Look` note every cell that
it reads (see `index`) and every moment that it compares with. A part that decided nothing decides
nothing again until a cell it read is touched or a moment comes; until then it is left out. A part
that decided something runs again. So the same is decided with and without reuse, in the same order.

A part that reads the whole snapshot (`Look.fleet`) or the bare clock (`Look.now`) is not wrong, it
is only run again whenever anything changes: nothing can be rested on without being noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from heapq import heappop, heappush
from itertools import chain
from typing import Any, TypeVar

from orchestrator.core.agenda import Agenda
from orchestrator.core.index import Cell, Touched
from orchestrator.core.pages import Page

T = TypeVar("T")
Key = Any  #: names the subject of a part: a node, a job, an attempt's (job, number), a cluster
Wrong = tuple[Page, str, str]  #: page, subject, reason

EVERYTHING = ("everything",)  #: the cell of who read the whole snapshot
NONE: frozenset[Cell] = frozenset()
WRONGS = ("wrongs",)  #: the cell of everything that is wrong now
ONE = "fleet"  #: the only key of a phase that is about the fleet as a whole


class Kind(Enum):
    """What the parts of a phase are about."""

    NODE = "node"
    JOB = "job"
    RUN = "run"
    CLUSTER = "cluster"
    FLEET = "fleet"


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """One kind of part: the same work for every subject, in the order of their keys."""

    name: str
    kind: Kind
    work: Callable[[Any, Any], None]  #: of the look and the subject
    order: Callable[[Any, Any], Any] | None = None  #: of the look and the key; None: by key

    def cell(self, key: Key) -> Cell:
        """Return the cell that is the part's own subject: it is never noted, always rested on."""
        match self.kind:
            case Kind.NODE:
                return key  # type: ignore[no-any-return]
            case Kind.JOB | Kind.CLUSTER:
                return (self.kind.value, key)
            case Kind.RUN:
                return ("job", key[0])
            case Kind.FLEET:
                return (ONE,)


@dataclass(slots=True)
class Notes:
    """What was read and compared with while a part ran, and what it found wrong."""

    reads: set[Cell] = field(default_factory=set)
    moments: set[datetime] = field(default_factory=set)  #: unmet: `look_again_at`
    ends: set[datetime] = field(default_factory=set)  #: from then on it may read otherwise
    wrongs: list[Wrong] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Say whether anything was noted."""
        return bool(self.reads or self.moments or self.ends or self.wrongs)

    def clear(self) -> None:
        """Note nothing any more."""
        self.reads.clear()
        self.moments.clear()
        self.ends.clear()
        self.wrongs.clear()


@dataclass(frozen=True, slots=True)
class Answer:
    """A question that several parts ask, answered once until something it rests on changes."""

    value: Any
    reads: set[Cell]
    again: datetime | None  #: the first unmet moment that it was compared with
    end: datetime | None  #: when it may read otherwise without having been asked about time

    def holds(self, now: datetime) -> bool:
        """Say whether no moment has come since it was given."""
        first, end = self.again, self.end
        return (first is None or first > now) and (end is None or end > now)


Part = tuple[Phase, Key]


class Parts:
    """Who must run, who rested on what, and the answers that are still good."""

    def __init__(self, phases: Iterable[Phase]) -> None:
        """Begin with every phase idle."""
        self.phases = tuple(phases)
        self._dirty: dict[Phase, set[Key]] = {phase: set() for phase in self.phases}
        for phase in self.phases:
            if phase.kind is Kind.FLEET:
                self._dirty[phase].add(ONE)
        self._known: set[Part] = set()  #: of whom anything is remembered
        self._reads: dict[Part, set[Cell]] = {}
        self._readers: dict[Cell, set[Part]] = {}
        self._again: Agenda[Part] = Agenda()
        self._ends: Agenda[Part] = Agenda()
        self._answers: dict[Cell, Answer] = {}
        self._askers: dict[Cell, set[Cell]] = {}
        self._wrongs: dict[Part, tuple[Wrong, ...]] = {}

    # --- who must run ---------------------------------------------------------------------------

    def touch(self, touched: Touched) -> None:
        """Let every part run again that rests on what was touched."""
        if not touched:
            return
        keys: dict[Kind, set[Any]] = {
            Kind.NODE: touched.nodes,
            Kind.JOB: touched.jobs,
            Kind.RUN: touched.runs,
            Kind.CLUSTER: touched.clusters,
            Kind.FLEET: set(),
        }
        for phase in self.phases:
            self._dirty[phase] |= keys[phase.kind]
        if not self._readers and not self._askers:
            return
        jobs = (("job", job) for job in touched.jobs)
        clusters = (("cluster", name) for name in touched.clusters)
        for cell in chain(touched.nodes, jobs, clusters, touched.cells, (EVERYTHING,)):
            self.touch_cell(cell)

    def touch_cell(self, cell: Cell) -> None:
        """Let every part run again that read this cell, or asked what rests on it."""
        for phase, key in self._readers.get(cell, ()):
            self._dirty[phase].add(key)
        for question in self._askers.pop(cell, ()):
            self._drop(question)

    def wake(self, now: datetime) -> None:
        """Let every part run again that compared with a moment that has come."""
        for phase, key in chain(self._again.due(now), self._ends.due(now)):
            self._dirty[phase].add(key)

    def again(self) -> datetime | None:
        """Return the next moment that any part waits for."""
        return self._again.first()

    def take(self, phase: Phase) -> set[Key]:
        """Return who must run, and forget it."""
        keys = self._dirty[phase]
        if keys:
            self._dirty[phase] = set()
        return keys

    def put(self, phase: Phase, keys: set[Key]) -> None:
        """Let these run."""
        self._dirty[phase] |= keys

    # --- what a part rested on ------------------------------------------------------------------

    def rested(self, part: Part, notes: Notes, now: datetime, *, again: bool) -> None:
        """Remember what a part rested on, and empty the notes.

        `again`: it decided something and must run anew.
        """
        known = part in self._known
        if not known:
            self._known.add(part)
        self._keep_reads(part, notes)
        if notes.moments or known:
            self._again.put(part, min((m for m in notes.moments if m > now), default=None))
        if notes.ends or known:
            self._ends.put(part, min(notes.ends, default=None))
        if notes.wrongs or known:
            self._keep_wrongs(part, tuple(notes.wrongs))
        if again:
            self._dirty[part[0]].add(part[1])
        elif known and not notes and part not in self._reads:
            self._known.discard(part)
        notes.clear()

    def _keep_reads(self, part: Part, notes: Notes) -> None:
        reads, old = notes.reads, self._reads.get(part, NONE)
        if reads == old:
            return
        readers = self._readers
        for cell in reads - old if old else reads:
            group = readers.get(cell)
            if group is None:
                group = readers[cell] = set()
            group.add(part)
        for cell in old - reads:
            self._discard(readers, cell, part)
        if reads:
            self._reads[part], notes.reads = reads, set()
        else:
            del self._reads[part]

    def _keep_wrongs(self, part: Part, wrongs: tuple[Wrong, ...]) -> None:
        if wrongs != self._wrongs.get(part, ()):
            self._wrongs[part] = wrongs
            if not wrongs:
                del self._wrongs[part]
            self.touch_cell(WRONGS)

    def readers(self, cell: Cell) -> set[Part]:
        """Return the parts that read a cell."""
        return set(self._readers.get(cell, ()))

    def rests(self, part: Part) -> bool:
        """Say whether anything is remembered of a part."""
        return part in self._known

    def wrongs(self, look: Any) -> Iterator[Wrong]:
        """Yield everything that is wrong, phase by phase, in the order of the subjects."""
        place = {phase: number for number, phase in enumerate(self.phases)}

        def order(part: Part) -> tuple[int, Any]:
            phase, key = part
            return place[phase], key if phase.order is None else phase.order(look, key)

        for part in sorted(self._wrongs, key=order):
            yield from self._wrongs[part]

    # --- questions ------------------------------------------------------------------------------

    def answer(self, question: Cell, now: datetime) -> Answer | None:
        """Return the answer to a question if it still holds."""
        answer = self._answers.get(question)
        if answer is None or answer.holds(now):
            return answer
        self._drop(question)
        return None

    def answered(self, question: Cell, value: Any, notes: Notes) -> Answer:
        """Remember an answer, and what it rests on."""
        first, end = min(notes.moments, default=None), min(notes.ends, default=None)
        answer = self._answers[question] = Answer(value, notes.reads, first, end)
        for cell in notes.reads:
            self._askers.setdefault(cell, set()).add(question)
        return answer

    def _drop(self, question: Cell) -> None:
        answer = self._answers.pop(question, None)
        if answer is not None:
            for cell in answer.reads:
                self._discard(self._askers, cell, question)
            self.touch_cell(question)

    @staticmethod
    def _discard(groups: dict[Cell, set[Any]], cell: Cell, member: Any) -> None:
        group = groups.get(cell)
        if group is not None:
            group.discard(member)
            if not group:
                del groups[cell]


def run(look: Any, parts: Parts, phase: Phase) -> None:
    """Run the parts of a phase that must run, in order, also those that it makes run itself.

    A part that becomes due behind the present one runs in this round, as it would if all ran; one
    before it waits for the next round.
    """
    waiting = parts.take(phase)
    if not waiting:
        return
    ready = look.ordered(phase, waiting)
    late: list[tuple[Any, Key]] = []
    place, before = 0, set[Key]()
    while place < len(ready) or late:
        if late and (place == len(ready) or late[0] < ready[place]):
            order, key = heappop(late)
        else:
            order, key = ready[place]
            place += 1
        waiting.discard(key)
        if not look.run(phase, key):
            continue
        for one in parts.take(phase):
            behind = look.order(phase, one)
            if behind <= order:
                before.add(one)
            elif one not in waiting:
                waiting.add(one)
                heappush(late, (behind, one))
    parts.put(phase, before)
