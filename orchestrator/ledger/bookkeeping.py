"""What a ledger holds of a job -> the facts of its account (`core.accounts`).

`read(ledger, job)` asks any ledger; everything behind it is pure. What agents noted (formed,
loaded, committed, ended), what the controller read in the register, and the moves of nodes are
events, of which some may be missing, late, or there twice; attempts, grants and where nodes stand
now are state. A ledger of an older version says less: seats are then taken from the grants, and
steps from the commits. What had to be assumed is told beside the facts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from statistics import median_low

from orchestrator.core.accounts import (
    Account,
    Closed,
    Committed,
    Degraded,
    Done,
    Fact,
    Failed,
    Finished,
    Formed,
    Key,
    Opened,
    Progressed,
    Resumed,
    Stalled,
    Submitted,
    Waiting,
)
from orchestrator.core.beliefs import AgentBelief
from orchestrator.core.jobs import OVER, Attempt, AttemptState, Job, SeatGrant
from orchestrator.core.nodes import Node, NodeName
from orchestrator.ledger.api import Event, Ledger
from orchestrator.ledger.paces import Anchor, Told, rising, slow
from orchestrator.ledger.seats import Seat, Seats, levels
from orchestrator.ledger.words import Word, moment, word

PAGE = 5_000  #: events read at once
SEATED = frozenset({"MoveNode", "Renew"})
FORMED = frozenset({"generation-formed", "generation-recorded"})
RESUMED = frozenset({"resumed", "recovered"})
NOTICED = frozenset({"rank-exited", "rank-stopped", "hang"})
WAITING, COMMIT, ENDED, FINISHED = "waiting", "commit", "ranks-ended", "finished"
KINDS = SEATED | FORMED | RESUMED | NOTICED | {WAITING, COMMIT, ENDED, FINISHED}
NOTHING = timedelta(0)


@dataclass(frozen=True, slots=True)
class State:
    """What a ledger holds of one job beside its events."""

    job: Job
    attempts: tuple[Attempt, ...] = ()
    grants: Mapping[int, tuple[SeatGrant, ...]] = field(default_factory=dict)
    nodes: Mapping[NodeName, Node] = field(default_factory=dict)
    agents: tuple[AgentBelief, ...] = ()  #: of the job, as they answered last


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one job, and what had to be assumed to have them."""

    facts: tuple[Fact, ...]
    assumed: tuple[str, ...]

    def account(self) -> Account:
        """Return the account that they make."""
        return Account().take_all(self.facts)


def read(ledger: Ledger, job: Job, now: datetime) -> Facts:
    """Return the facts of a job as any ledger holds them."""
    return facts(events(ledger, job), state(ledger, job, now))


def state(ledger: Ledger, job: Job, now: datetime) -> State:
    """Return what a ledger holds of a job beside its events."""
    attempts = ledger.attempts(job.name)
    grants = {one.number: ledger.grants(job.name, one.number) for one in attempts}
    fleet = ledger.snapshot(now, ())
    known = (agent for belief in fleet.beliefs.nodes.values() for agent in belief.agents)
    agents = tuple(agent for agent in known if agent.job == job.name)
    return State(job, attempts, grants, fleet.nodes, agents)


def events(ledger: Ledger, job: Job) -> Iterator[Event]:
    """Yield every event that says something of a job's time, page by page."""
    page: tuple[Event, ...] = ledger.told(job.name, KINDS, 0, PAGE)
    while page:
        yield from page
        page = ledger.told(job.name, KINDS, page[-1].number, PAGE) if len(page) == PAGE else ()


def facts(told: Iterable[Event], held: State) -> Facts:
    """Return the facts that events and state amount to: the same whatever the events' order."""
    story = _Story(held, {event.number: event for event in told})
    return Facts(tuple(story.facts()), tuple(story.assumed()))


@dataclass(slots=True)
class _Generation:
    """The words about one generation, by what they are."""

    formed: list[Word] = field(default_factory=list)
    resumed: list[Word] = field(default_factory=list)
    commits: list[Word] = field(default_factory=list)
    heads: list[tuple[datetime, int]] = field(default_factory=list)  #: (durable at, step)
    ended: list[Word] = field(default_factory=list)
    noticed: list[Word] = field(default_factory=list)
    done: list[datetime] = field(default_factory=list)
    live: list[tuple[datetime, int]] = field(default_factory=list)  #: last answers: (at, step)

    @property
    def members(self) -> frozenset[str]:
        """Names of the nodes it is of."""
        return frozenset().union(*(one.names("members") for one in self.formed))

    @property
    def formed_at(self) -> datetime | None:
        """Return the first moment at which it is known to have been formed."""
        return min((one.at for one in self.formed), default=None)

    @property
    def counts_stalls(self) -> bool:
        """Say whether its commits come with the sum of all stalls so far."""
        return any(one.lasted("stalled_seconds") is not None for one in self.commits)


class _Story:
    """Everything that was told of one job, put in its place."""

    def __init__(self, held: State, told: Mapping[int, Event]) -> None:
        self._held, self._job = held, held.job
        self._seats = Seats(self._job.name, held.attempts, held.grants, held.nodes)
        self._generations: defaultdict[Key, _Generation] = defaultdict(_Generation)
        self._seqs: dict[int, Key] = {}  #: of generations
        self._steps: dict[int, int] = {}  #: seq of a commit -> step
        self._waits: list[datetime] = []
        unnamed: list[Word] = []  #: generations of older agents that finished
        for _, event in sorted(told.items()):
            if event.kind in SEATED:
                self._seats.take(event)
            elif event.kind in KINDS:
                said = word(event, self._job)
                if said is not None and not self._place(said):
                    unnamed.append(said)
        self._settle(unnamed)

    def _place(self, said: Word) -> bool:
        """Put a word where it belongs; False if it does not say of which generation it is."""
        if said.kind == WAITING:
            self._waits.append(said.at)
            return True
        number = said.whole("number" if said.kind in FORMED else "generation")
        if number is None:
            return said.kind != FINISHED
        known, step = self._generations[said.attempt, number], said.whole("step")
        seq = said.whole("resume" if said.kind in FORMED else "seq")
        if seq is not None and step is not None:
            self._steps[seq] = step
        if said.kind in FORMED:
            known.formed.append(said)
            self._seqs.setdefault(said.whole("seq") or 0, (said.attempt, number))
        elif said.kind in RESUMED:
            known.resumed.append(said)
        elif said.kind == COMMIT and step is not None:
            known.commits.append(said)
        elif said.kind == FINISHED or (said.kind == ENDED and said.data.get("finished") is True):
            known.done.append(said.at)
        elif said.kind in NOTICED:
            known.noticed.append(said)
        if said.kind == ENDED:
            known.ended.append(said)
        return True

    def _settle(self, unnamed: list[Word]) -> None:
        """Put what needs the rest in its place: finished ones, heads of registers, last answers."""
        for said in unnamed:
            numbers = [number for attempt, number in self._generations if attempt == said.attempt]
            if numbers:
                self._generations[said.attempt, max(numbers)].done.append(said.at)
        for one in [said for known in self._generations.values() for said in known.formed]:
            key = self._seqs.get(one.whole("under") or -1)
            durable, step = one.moment("durable_at"), one.whole("step")
            if key is not None and durable is not None and step is not None:
                self._generations[key].heads.append((durable, step))
        for agent in self._held.agents:
            report, heard_at = agent.report, agent.answered_at
            if report is None or report.generation is None or heard_at is None:
                continue
            key = (agent.attempt, report.generation)
            for rank in report.ranks:
                at = None if rank.step_at is None else moment(rank.step_at)
                if key in self._generations and rank.step is not None and at is not None:
                    at = min(max(at, self._job.submitted_at), heard_at)
                    self._generations[key].live.append((at, rank.step))

    # --- facts ------------------------------------------------------------------------------------

    def facts(self) -> Iterator[Fact]:
        """Yield every fact."""
        yield from self._of_job()
        known = self._generations.values()
        formed = [(at, one.members) for one in known if (at := one.formed_at) and one.members]
        worth = {seat.node: self._seats.worth(seat.node) for seat in self._all_seats}
        yield from levels(self._all_seats, formed, worth)
        curves = {key: self._curve(one) for key, one in self._generations.items()}
        gpus = {key: self._gpus(one) for key, one in self._generations.items()}
        for key, one in sorted(self._generations.items()):
            yield from self._of(key, one, gpus[key], curves[key])
        for key, paces in slow(curves, gpus).items():
            yield from (Degraded(at, *key, speed) for at, speed in paces)

    def _of_job(self) -> Iterator[Fact]:
        job = self._job
        yield Submitted(job.submitted_at)
        if job.state in OVER:
            yield Finished(job.since)
        for attempt in self._held.attempts:
            yield Opened(attempt.opened_at, attempt.number)
            if attempt.state is AttemptState.CLOSED:
                yield Closed(attempt.since, attempt.number)
        yield from (Waiting(at) for at in self._waits)

    def _of(self, key: Key, one: _Generation, gpus: int, curve: list[Anchor]) -> Iterator[Fact]:
        formed_at = one.formed_at
        if formed_at is not None:
            yield Formed(formed_at, *key, gpus, self._begun(one))
        resumed = self._resumed(one)
        if resumed is not None:
            yield Resumed(resumed[0], *key, resumed[1])
        yield from (Progressed(at, *key, done, stalled) for at, done, stalled in curve)
        durable = [(said.at, said.whole("step") or 0) for said in one.commits]
        yield from (Committed(at, *key, done) for at, done in (*durable, *one.heads))
        if not one.counts_stalls:
            yield from _stalls(key, one.commits)
        yield from (Done(at, *key) for at in one.done)
        for said in one.ended:
            yield Failed(said.moment("step_at") or said.at, *key, said.at)
        for said in one.noticed:
            yield Failed(said.at - (said.lasted("seconds") or NOTHING), *key, said.at)

    def _resumed(self, one: _Generation) -> tuple[datetime, int] | None:
        """Return when the last rank had loaded, so that steps can be made, and from which step."""
        begun = sorted(
            ((said.at, said.whole("step")) for said in one.resumed), key=lambda told: told[0]
        )
        first = next((known for _, known in begun if known is not None), self._begun(one))
        return (begun[-1][0], first) if begun and first is not None else None

    def _begun(self, one: _Generation) -> int | None:
        """Return the step of the commit that a generation was formed from; 0 from nothing."""
        named = [said for said in one.formed if "resume" in said.data]
        if any(said.data["resume"] is None for said in named):
            return 0
        seqs = (said.whole("resume") for said in named)
        return next((self._steps[seq] for seq in seqs if seq in self._steps), None)

    def _curve(self, one: _Generation) -> list[Anchor]:
        """Return (moment, step completed, stalled so far) in order, from all that was told."""
        resumed = self._resumed(one)
        known: list[Told] = [] if resumed is None else [(*resumed, NOTHING)]
        for said in one.commits:
            lag, stalled = said.lasted("lag_seconds"), said.lasted("stalled_seconds")
            at = said.at - (self._lag if lag is None else lag)
            known.append((at, said.whole("step") or 0, stalled))
        known += [(at - self._lag, step, None) for at, step in one.heads]
        for said in one.ended:
            for name in ("first_step", "step"):
                step, at_step = said.whole(name), said.moment(f"{name}_at")
                if step is not None and at_step is not None:
                    stalled = said.lasted("stalled_seconds") if name == "step" else None
                    known.append((at_step, step, stalled))
        return rising([*known, *((at, step, None) for at, step in one.live)])

    @cached_property
    def _lag(self) -> timedelta:
        """How long it usually takes until a checkpoint is durable."""
        told = (
            said.lasted("lag_seconds") for g in self._generations.values() for said in g.commits
        )
        known = sorted(lag for lag in told if lag is not None)
        return median_low(known) if known else NOTHING

    @cached_property
    def _all_seats(self) -> list[Seat]:
        return self._seats.all()

    def _gpus(self, one: _Generation) -> int:
        return sum(self._seats.worth(NodeName(name)).gpus for name in one.members)

    # --- what is not known ------------------------------------------------------------------------

    def assumed(self) -> Iterator[str]:
        """Yield in words what had to be assumed."""
        nodes = sorted({seat.node for seat in self._all_seats})
        plain = [node for node in nodes if not self._seats.worth(node).counted]
        if plain:
            yield f"{_some(plain)}: no accelerators are told; each such node counts as one GPU"
        unsure = sorted({seat.node for seat in self._all_seats if seat.unsure})
        if unsure:
            yield f"{_some(unsure)}: until when it was seated is a guess"
        steps = [
            f"{attempt}.{number}"
            for (attempt, number), one in sorted(self._generations.items())
            if self._begun(one) is None and all(s.whole("step") is None for s in one.resumed)
        ]
        if steps:
            yield f"generation {_some(steps)}: nobody told from which step it went on"


def _stalls(key: Key, commits: Iterable[Word]) -> Iterator[Fact]:
    """Yield the stalls of commits that older agents told one by one."""
    for said in commits:
        stall, lag = said.lasted("stall_seconds"), said.lasted("lag_seconds")
        if stall:
            yield Stalled(said.at - max(NOTHING, (lag or stall) - stall), *key, stall)


def _some(names: list[str] | list[NodeName]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
