"""Where a job's GPU-seconds went: timed facts -> an account that always sums up.

Called by whoever has the facts: `ledger.bookkeeping` draws them from what the ledger holds when a
person asks for a report, and tests compare that with the simulator's truth. An account takes facts
of one job in any order, late, or twice, and gives the same figures: each fact sets a level ("from
here on the job holds 2,000 GPUs") or a counter that only grows ("step 48,200, 71 s of stalls so
far"), never a difference. What the facts amount to is worked out when it is asked for
(`timeline.py`), from all of them together. Its state is a few numbers per generation and per change
of the seats, whatever the number of steps: counts of GPUs over time, no rows per node. All times
are whole microseconds: nothing drifts.

    account = Account()
    account.take(Submitted(at))                      # from here on, waiting counts
    account.take(Opened(at, attempt=1))
    account.take(Held(at, gpus=2_008, standby=8, price=2.10))   # level; price: $ per GPU-hour
    account.take(Formed(at, 1, 1, gpus=2_000, step=0))          # step resumed from; 0: from nothing
    account.take(Resumed(at, 1, 1, step=0))          # state loaded; the next step is step + 1
    account.take(Progressed(at, 1, 1, step=120, stalled=timedelta(seconds=2)))
    account.take(Committed(at, 1, 1, step=100))      # step 100 is durable since `at`
    account.take(Failed(at, 1, 1, noticed_at=at + timedelta(seconds=10)))
    account.take(Formed(at, 1, 2, gpus=2_000, step=100))        # lost work: all after step 100
    timeline = Timeline(account, until=now)          # orchestrator.core.timeline
    week = timeline.book(since=now - timedelta(days=7), until=now)
    week.gpu_seconds[Cause.LOST_WORK], week.dollars[Cause.DETECT], week.ettr
    assert sum(week.gpu_us.values()) == week.paid_us

Further facts: `Started` (ranks started), `Stalled` (one blocking stall, where no running total is
known), `Localising`/`Localised`, `Degraded` (speed from here on), `Waiting` (too few nodes from
here on, or enough again), `Done` (every rank ended well), `Closed` (attempt), `Finished` (job).
`Progressed` may be as rare or as frequent as one likes. Pure: no clock, no dice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ANCHORS_MAX = 32  #: moments of progress remembered per generation
NORMAL = 1_000  #: speed in thousandths

Us = int  #: microseconds since the epoch, or of a duration


# --- facts --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job is wanted from here on."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is over, well or not."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """From here on the job holds so many GPUs: all seats, standbys included."""

    at: datetime
    gpus: int
    standby: int = 0  #: of them, in nodes that stand by
    price: float | None = None  #: US dollars per GPU-hour, the mean of what is held
    unsure: int = 0  #: of them, how many nobody told all of: when they came or went is a guess


@dataclass(frozen=True, slots=True)
class Opened:
    """An attempt begins."""

    at: datetime
    attempt: int


@dataclass(frozen=True, slots=True)
class Closed:
    """An attempt is over: nothing of it trains, and every seat of it was let go."""

    at: datetime
    attempt: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """From here on the attempt lacks nodes to form a gang, or has enough again."""

    at: datetime
    lacks: bool = True


@dataclass(frozen=True, slots=True)
class Formed:
    """A generation was formed."""

    at: datetime
    attempt: int
    generation: int
    gpus: int  #: of its members
    step: int | None = None  #: of the commit it resumes from; 0: from nothing; None: not known


@dataclass(frozen=True, slots=True)
class Started:
    """The ranks of a generation were started."""

    at: datetime
    attempt: int
    generation: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """The ranks have loaded the state after `step` and train on."""

    at: datetime
    attempt: int
    generation: int
    step: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """A step was completed; `stalled`: all time of this generation spent in checkpoint stalls."""

    at: datetime
    attempt: int
    generation: int
    step: int
    stalled: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Committed:
    """The state after `step` is durable."""

    at: datetime
    attempt: int
    generation: int
    step: int


@dataclass(frozen=True, slots=True)
class Stalled:
    """One checkpoint blocked the ranks for so long and ended here.

    For rare, long stalls without a running total; each is remembered.
    """

    at: datetime
    attempt: int
    generation: int
    lasted: timedelta


@dataclass(frozen=True, slots=True)
class Failed:
    """The generation made its last step; `noticed_at`: when somebody knew. Also planned ends."""

    at: datetime
    attempt: int
    generation: int
    noticed_at: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """Every rank of the generation ended well."""

    at: datetime
    attempt: int
    generation: int


@dataclass(frozen=True, slots=True)
class Localising:
    """The search for the culprit of this generation's failure begins."""

    at: datetime
    attempt: int
    generation: int


@dataclass(frozen=True, slots=True)
class Localised:
    """The search for the culprit is over."""

    at: datetime
    attempt: int
    generation: int


@dataclass(frozen=True, slots=True)
class Degraded:
    """From here on the generation runs at this share of its normal speed; 1 is normal again."""

    at: datetime
    attempt: int
    generation: int
    speed: float


Fact = (
    Submitted
    | Finished
    | Held
    | Opened
    | Closed
    | Waiting
    | Formed
    | Started
    | Resumed
    | Progressed
    | Committed
    | Stalled
    | Failed
    | Done
    | Localising
    | Localised
    | Degraded
)


# --- state --------------------------------------------------------------------------------------

Anchor = tuple[Us, int, Us]  #: (at, step completed, stalled so far)


@dataclass(slots=True)
class GenerationFacts:
    """What is known of one generation. Every field is a least, a greatest, or a set."""

    formed: Us | None = None
    gpus: int = 0
    step: int | None = None  #: resumed from, as its record says
    started: Us | None = None
    resumed: Us | None = None
    begin: int | None = None  #: resumed from, as its ranks say
    first: Anchor | None = None
    last: Anchor | None = None
    anchors: dict[int, Anchor] = field(default_factory=dict)  #: the earliest of each bucket
    width: Us = 1_000_000  #: of a bucket, doubled until there are few enough
    committed: int | None = None  #: the highest step that is durable
    failed: Us | None = None
    noticed: Us | None = None
    done: Us | None = None
    localising: Us | None = None
    localised: Us | None = None
    stalls: dict[Us, Us] = field(default_factory=dict)  #: end -> how long
    speeds: dict[Us, int] = field(default_factory=dict)  #: since -> thousandths

    def progressed(self, anchor: Anchor) -> None:
        """Remember a moment of progress. The same set gives the same memory in any order."""
        self.first = anchor if self.first is None else min(self.first, anchor)
        self.last = anchor if self.last is None else max(self.last, anchor)
        bucket = anchor[0] // self.width
        self.anchors[bucket] = min(anchor, self.anchors.get(bucket, anchor))
        while self.last[0] // self.width - self.first[0] // self.width >= ANCHORS_MAX:
            self.width *= 2
            merged: dict[int, Anchor] = {}
            for one in self.anchors.values():
                bucket = one[0] // self.width
                merged[bucket] = min(one, merged.get(bucket, one))
            self.anchors = merged

    def curve(self) -> list[Anchor]:
        """Return its remembered moments of progress, with the last, in order."""
        known = set(self.anchors.values())
        if self.last is not None:
            known.add(self.last)
        return sorted(known)


Key = tuple[int, int]  #: (attempt, generation)
Level = tuple[int, int, int, int]  #: GPUs, standing by, micro-dollars per GPU-hour or -1, unsure


@dataclass(slots=True)
class Account:
    """The facts of one job, as far as they matter. Changed in place by `take`."""

    held: dict[Us, Level] = field(default_factory=dict)
    generations: dict[Key, GenerationFacts] = field(default_factory=dict)
    opened: dict[int, Us] = field(default_factory=dict)
    closed: dict[int, Us] = field(default_factory=dict)
    waits: dict[Us, bool] = field(default_factory=dict)
    submitted: Us | None = None
    finished: Us | None = None

    def take(self, fact: Fact) -> None:
        """Take a fact in: once or twice, early or late, it makes no difference."""
        at = us(fact.at)
        match fact:
            case Submitted():
                self.submitted = _least(self.submitted, at)
            case Finished():
                self.finished = _least(self.finished, at)
            case Held(gpus=gpus, standby=standby, price=price, unsure=unsure):
                dollars = -1 if price is None else round(price * 1e6)
                level = (gpus, min(standby, gpus), dollars, min(unsure, gpus))
                self.held[at] = max(level, self.held.get(at, level))
            case Opened(attempt=attempt):
                self.opened[attempt] = _least(self.opened.get(attempt), at)
            case Closed(attempt=attempt):
                self.closed[attempt] = _least(self.closed.get(attempt), at)
            case Waiting(lacks=lacks):
                self.waits[at] = lacks or self.waits.get(at, False)
            case _:
                self._of_generation(fact, at)

    def take_all(self, facts: Iterable[Fact]) -> Account:
        """Take many facts in; returns itself."""
        for fact in facts:
            self.take(fact)
        return self

    def _of_generation(  # noqa: C901 - one case per fact, nothing else
        self,
        fact: Formed
        | Started
        | Resumed
        | Progressed
        | Committed
        | Stalled
        | Failed
        | Done
        | Localising
        | Localised
        | Degraded,
        at: Us,
    ) -> None:
        known = self.generations.setdefault((fact.attempt, fact.generation), GenerationFacts())
        match fact:
            case Formed(gpus=gpus, step=step):
                known.formed, known.gpus = _least(known.formed, at), max(known.gpus, gpus)
                if step is not None:
                    known.step = _least(known.step, step)
            case Started():
                known.started = _least(known.started, at)
            case Resumed(step=step):
                known.resumed, known.begin = _least(known.resumed, at), _least(known.begin, step)
            case Progressed(step=step, stalled=stalled):
                known.progressed((at, step, stalled // MICROSECOND))
            case Committed(step=step):
                known.committed = step if known.committed is None else max(known.committed, step)
            case Stalled(lasted=lasted):
                known.stalls[at] = max(known.stalls.get(at, 0), lasted // MICROSECOND)
            case Failed(noticed_at=noticed_at):
                known.failed = _least(known.failed, at)
                known.noticed = _least(known.noticed, us(noticed_at))
            case Done():
                known.done = _least(known.done, at)
            case Localising():
                known.localising = _least(known.localising, at)
            case Localised():
                known.localised = at if known.localised is None else max(known.localised, at)
            case Degraded(speed=speed):
                level = max(0, min(NORMAL, round(speed * NORMAL)))
                known.speeds[at] = min(known.speeds.get(at, level), level)


def us(at: datetime) -> Us:
    """Return a moment in microseconds since the epoch, exactly."""
    return (at - EPOCH) // MICROSECOND


def _least(known: int | None, new: int) -> int:
    return new if known is None else min(known, new)
