"""A job's time, laid out without gaps, and booked: every GPU-second to exactly one cause.

Worked out from an `Account` when somebody asks. First the gang's time becomes spans, one after the
other: waiting for nodes, restarting, running, detecting, localising. What a later generation did
not resume from becomes lost work. Then each span is multiplied by what was held, in whole
microseconds; what a division leaves over goes to the last of its parts, so that the sum is exact.

Where a fact is missing (lost, or not there yet) the span is guessed from its neighbours and from
what the same job's other generations usually took, and is marked as guessed. Time about which
nothing speaks is *unattributed*; it is never called productive.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import accumulate, pairwise, zip_longest
from statistics import median_low

from orchestrator.core.accounts import EPOCH, MICROSECOND, NORMAL, Account, GenerationFacts, Us, us

SECOND: Us = 1_000_000
HOUR: Us = 3_600 * SECOND
PATIENCE: Us = 15 * 60 * SECOND  #: a gang without a sign of progress for longer: unattributed
DETECT: Us = 30 * SECOND  #: usual lengths, where the job's own are not known
RESTART: Us = 60 * SECOND
LOCALISE: Us = 60 * SECOND


class Cause(StrEnum):
    """What a GPU-second went to."""

    PRODUCTIVE = "productive"
    LOST_WORK = "lost work"  #: steps after the commit that the next generation resumed from
    DETECT = "detect"  #: from the last step to the moment at which somebody knew
    LOCALISE = "localise"  #: the search for the culprit
    RESTART = "restart"  #: from there to the first step: forming, starting, loading
    CHECKPOINT_STALL = "checkpoint stall"
    DEGRADED = "degraded"  #: what a gang below its normal speed did not get done
    IDLE = "idle"  #: held, and neither in the gang nor standing by
    SPARE = "spare"  #: standing by
    OUTAGE = "outage"  #: too few nodes to form a gang
    UNATTRIBUTED = "unattributed"


#: Causes that only the members of a generation are booked to; what else is held idles beside them.
OF_MEMBERS = frozenset({Cause.PRODUCTIVE, Cause.LOST_WORK, Cause.DETECT, Cause.UNATTRIBUTED})


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the gang's time. PRODUCTIVE is yet to be shared with stalls and slowness."""

    start: Us
    end: Us
    cause: Cause
    of: Life | None = None  #: the generation whose members it is about
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Book:
    """Where the time of one window went. `sum(gpu_us.values()) == paid_us`, exactly."""

    since: datetime
    until: datetime
    paid_us: int  #: GPU-microseconds held
    gpu_us: dict[Cause, int]
    guessed_us: dict[Cause, int]  #: of those, how many rest on a guess
    wall_us: dict[Cause, int]  #: the gang's own time, also while nothing was held
    dollars: dict[Cause, float]
    unpriced_us: int  #: GPU-microseconds whose price nobody knows

    @property
    def gpu_seconds(self) -> dict[Cause, float]:
        """Return the GPU-seconds of each cause."""
        return {cause: amount / SECOND for cause, amount in self.gpu_us.items()}

    @property
    def ettr(self) -> float | None:
        """Return productive time through the job's time, waiting included; None: it had none."""
        whole = sum(self.wall_us.values()) - self.wall_us[Cause.IDLE]
        return self.wall_us[Cause.PRODUCTIVE] / whole if whole else None

    def share(self, cause: Cause) -> float:
        """Return a cause's share of what was paid."""
        return self.gpu_us[cause] / self.paid_us if self.paid_us else 0.0


class Life:
    """One generation with everything missing filled in."""

    def __init__(self, facts: GenerationFacts, begin: int | None, *, sure: bool) -> None:
        """Take its facts, and the step it began from as far as anybody can tell."""
        self.facts, self.gpus = facts, facts.gpus
        self.begin, self.sure = begin, sure  #: whether `begin` is known or guessed
        self.moments: list[Us] = []
        self.steps: list[int] = []
        self.stalled: list[Us] = []
        for at, step, stalled in facts.curve():
            if not self.steps or step >= self.steps[-1]:
                self.moments.append(at)
                self.steps.append(step)
                self.stalled.append(max(stalled, *self.stalled[-1:], 0))
        self._stalls = _united((end - lasted, end) for end, lasted in facts.stalls.items())
        self._before = [0, *accumulate(end - start for start, end in self._stalls)]
        self.speeds = sorted(facts.speeds.items())

    def runs_from(self, at: Us) -> None:
        """Set the moment at which its first step began."""
        if not self.moments or at < self.moments[0]:
            self.moments.insert(0, at)
            begin = 0 if self.begin is None else self.begin
            first = self.steps[0] if self.steps else begin + 1
            self.steps.insert(0, first - 1 if self.begin is None else min(begin, first))
            self.stalled.insert(0, 0)

    def reached(self, step: int) -> Us:
        """Return when a step was completed, between or behind the moments that are known."""
        index = bisect_left(self.steps, step)
        if index == 0:
            return self.moments[0]
        if index < len(self.steps):
            return _between(step, index, self.steps, self.moments)
        steps, lasted = self.steps[-1] - self.steps[0], self.moments[-1] - self.moments[0]
        ahead = (step - self.steps[-1]) * lasted // steps if steps else 0
        return self.moments[-1] + ahead

    def stalls_until(self, at: Us) -> Us:
        """Return how long checkpoints had stalled it by then."""
        done = bisect_right(self._stalls, (at, at))
        whole = self._before[done]
        if done and self._stalls[done - 1][1] > at:
            whole -= self._stalls[done - 1][1] - at
        index = bisect_right(self.moments, at)
        if index == 0:
            return whole
        if index == len(self.moments):
            return whole + self.stalled[-1]
        return whole + _between(at, index, self.moments, self.stalled)


@dataclass(frozen=True, slots=True)
class Usual:
    """How long things usually take in this job."""

    detect: Us = DETECT
    restart: Us = RESTART
    localise: Us = LOCALISE


@dataclass(slots=True)
class _Laid:
    """Spans laid one behind the other."""

    cursor: Us
    until: Us
    spans: list[Span] = field(default_factory=list)

    def lay(self, cause: Cause, to: Us, of: Life | None = None, *, guessed: bool = False) -> None:
        """Go on with a cause as far as `to`; nothing if that is past already."""
        end = min(to, self.until)
        if end > self.cursor:
            self.spans.append(Span(self.cursor, end, cause, of, guessed))
            self.cursor = end


class Timeline:
    """The time of one job as far as `until`."""

    def __init__(self, account: Account, until: datetime) -> None:
        """Lay out what the account knows."""
        self.account, self.until = account, us(until)
        self._usual = _usual(account)
        self._holding = _holding(account)
        self._since = [at for at, *_ in self._holding]
        self.spans: list[Span] = self._overlaid(self._lay())
        self._ends = [span.end for span in self.spans]

    def book(self, since: datetime, until: datetime) -> Book:
        """Book the time between two moments."""
        ledger = _Booking()
        start, end = us(since), min(us(until), self.until)
        for span in self.spans[bisect_right(self._ends, start) :]:
            if span.start >= end:
                break
            self._book(ledger, span, max(start, span.start), min(end, span.end))
        return ledger.closed(since, until)

    def all(self) -> Book:
        """Book everything: ETTR is then cumulative."""
        start = self.spans[0].start if self.spans else self.until
        moments = [EPOCH + at * MICROSECOND for at in (start, self.until)]
        return self.book(*moments)

    def sliding(self, window: Us = HOUR) -> list[tuple[datetime, float | None]]:
        """Return (end of window, ETTR in it) for each whole window since the beginning."""
        if not self.spans:
            return []
        edges = range(self.spans[0].start, self.until + 1, window)
        ends = [EPOCH + at * MICROSECOND for at in edges]
        pairs = pairwise(ends)
        return [(end, self.book(start, end).ettr) for start, end in pairs]

    # --- laying out ---------------------------------------------------------------------------

    def _lay(self) -> list[Span]:
        account = self.account
        keys = sorted(account.generations)
        attempts = sorted({*account.opened, *account.closed, *(one for one, _ in keys)})
        lives = _lives(account, keys)
        kept = _kept(keys, lives)
        firsts = [self._first(attempt, keys) for attempt in attempts]
        begin = min([*firsts, *account.held, *_known(account.submitted)], default=self.until)
        laid = _Laid(begin, self.until)
        for index, attempt in enumerate(attempts):
            following = firsts[index + 1] if index + 1 < len(firsts) else None
            laid.lay(Cause.OUTAGE, firsts[index])
            mine = [key for key in keys if key[0] == attempt]
            end = self._end(attempt, following)
            for number, key in enumerate(mine):
                behind = mine[number + 1] if number + 1 < len(mine) else None
                limit = end if behind is None else min(end, self._formed(behind))
                self._live(laid, lives[key], limit, kept[key], last=behind is None)
            laid.lay(Cause.RESTART, end)
        over = account.finished
        if over is not None:
            laid.lay(Cause.OUTAGE if laid.cursor < over else Cause.IDLE, over)
            laid.lay(Cause.IDLE, self.until)
        laid.lay(Cause.OUTAGE, self.until)
        return laid.spans

    def _live(
        self, laid: _Laid, life: Life, limit: Us, kept: tuple[int, bool] | None, *, last: bool
    ) -> None:
        """Lay out one generation, as far as `limit`: what comes after it."""
        facts, open_ended = life.facts, last and limit >= self.until
        laid.lay(Cause.RESTART, min(limit, _earliest(facts, self.until)), life)
        runs, sure = self._runs_from(life, limit)
        stop, noticed, told = self._stops(life, limit, open_ended=open_ended)
        if runs is None or (told and stop <= runs):
            laid.lay(Cause.RESTART, stop if told else limit, life)
        else:
            life.runs_from(runs)
            laid.lay(Cause.RESTART, runs, life, guessed=not sure)
            self._run(laid, life, stop, kept, guessed=not told)
        if facts.done is not None:
            laid.lay(Cause.IDLE, limit)
            return
        laid.lay(Cause.DETECT, min(noticed, limit), life, guessed=not told)
        laid.lay(Cause.RESTART, limit, guessed=not told)

    def _run(
        self, laid: _Laid, life: Life, stop: Us, kept: tuple[int, bool] | None, *, guessed: bool
    ) -> None:
        guessed = guessed and stop < self.until
        if kept is not None:
            step, known = kept
            good = min(stop, max(laid.cursor, life.reached(step)))
            laid.lay(Cause.PRODUCTIVE, good, life)
            laid.lay(Cause.LOST_WORK, stop, life, guessed=guessed or not known)
            return
        seen = max(life.moments[-1], laid.cursor)
        if stop >= self.until:
            laid.lay(Cause.PRODUCTIVE, min(stop, seen + PATIENCE), life)
            laid.lay(Cause.UNATTRIBUTED, stop, life)
        else:
            laid.lay(Cause.PRODUCTIVE, min(stop, seen), life)
            laid.lay(Cause.PRODUCTIVE, stop, life, guessed=guessed)

    def _runs_from(self, life: Life, limit: Us) -> tuple[Us | None, bool]:
        """Return (when its first step began, whether that is known); None: never, or not yet."""
        facts = life.facts
        if facts.resumed is not None:
            return min(facts.resumed, limit), True
        if not life.moments:
            return None, True
        first, least = life.moments[0], max(_known(facts.started) or _known(facts.formed) or [0])
        steps, lasted = life.steps[-1] - life.steps[0], life.moments[-1] - first
        done = max(1, life.steps[0] - (life.begin or 0)) if life.begin is not None else 1
        back = done * lasted // steps if steps else 0
        return min(limit, max(first - back, min(least, first))), False

    def _stops(self, life: Life, limit: Us, *, open_ended: bool) -> tuple[Us, Us, bool]:
        """Return (end of its last step, when that was noticed, whether it is known)."""
        facts = life.facts
        last = life.moments[-1] if life.moments else 0
        if facts.done is not None:
            stop = min(max(facts.done, last), limit)
            return stop, stop, True
        if facts.failed is not None and facts.noticed is not None:
            stop = min(max(facts.failed, last), limit)
            return stop, min(max(facts.noticed, stop), limit), True
        if open_ended:
            return limit, limit, False
        stop = max(min(last, limit), limit - self._usual.restart - self._usual.detect)
        return stop, min(limit, stop + self._usual.detect), False

    def _formed(self, key: tuple[int, int]) -> Us:
        return _earliest(self.account.generations[key], self.until)

    def _first(self, attempt: int, keys: list[tuple[int, int]]) -> Us:
        opened = self.account.opened.get(attempt)
        if opened is not None:
            return opened
        mine = [self._formed(key) for key in keys if key[0] == attempt]
        return min([*mine, *_known(self.account.closed.get(attempt))])

    def _end(self, attempt: int, following: Us | None) -> Us:
        """Return when an attempt was over: closed, or another one begun, or the job finished."""
        closed, finished = self.account.closed.get(attempt), self.account.finished
        return min([*_known(closed), *_known(following), *_known(finished), self.until])

    def _overlaid(self, spans: list[Span]) -> list[Span]:
        """Say of restarting time where it was a search, and where a wait for nodes."""
        searches = list(self._searches())
        for cause, guessed, intervals in (
            (Cause.LOCALISE, False, [one for one, known in searches if known]),
            (Cause.LOCALISE, True, [one for one, known in searches if not known]),
            (Cause.OUTAGE, False, list(self._waits())),
        ):
            united = _united(intervals)
            overlay = [_over(span, united, cause, guessed=guessed) for span in spans]
            spans = [part for parts in overlay for part in parts]
        return spans

    def _searches(self) -> Iterator[tuple[tuple[Us, Us], bool]]:
        """Yield ((from, to), whether both are known) of each search for a culprit."""
        generations = self.account.generations
        newest = max(generations, default=None)
        for key, facts in generations.items():
            start, end = facts.localising, facts.localised
            if start is not None and end is not None:
                yield (start, end), True
            elif start is not None and key == newest:
                yield (start, self.until), True
            elif start is not None:
                yield (start, start + self._usual.localise), False
            elif end is not None:
                yield (end - self._usual.localise, end), False

    def _waits(self) -> Iterator[tuple[Us, Us]]:
        formed = sorted(one.formed for one in self.account.generations.values() if one.formed)
        moments = sorted({*self.account.waits, *formed})
        for index, at in enumerate(moments):
            if self.account.waits.get(at, False):
                enough = (m for m in moments[index + 1 :] if not self.account.waits.get(m, False))
                yield at, next(enough, self.until)

    # --- booking ------------------------------------------------------------------------------

    def _book(self, ledger: _Booking, span: Span, start: Us, end: Us) -> None:
        life = span.of
        low, high = bisect_right(self._since, start), bisect_left(self._since, end)
        edges = {start, end, *self._since[low:high]}
        if life is not None and span.cause is Cause.PRODUCTIVE:
            edges |= {at for at, _ in life.speeds if start < at < end}
        cuts = sorted(edges)
        for left, right in pairwise(cuts):
            self._book_piece(ledger, span, left, right)

    def _book_piece(self, ledger: _Booking, span: Span, start: Us, end: Us) -> None:
        """Book a piece of time in which nothing changes."""
        life, lasted = span.of, end - start
        held, standby, price, unsure = self._held(span, start)
        gang = held if span.cause is Cause.IDLE else held - standby
        if life is not None and life.gpus and span.cause in OF_MEMBERS:
            gang = min(life.gpus, held)
        spare = 0 if span.cause is Cause.IDLE else min(standby, held - gang)
        parts = self._shared(span, start, end)
        over = self.account.finished is not None and start >= self.account.finished
        for cause, amount in parts.items():
            guessed = gang if span.guessed else min(gang, unsure)
            ledger.book(cause, amount * gang, price, amount * guessed)
            if not over:
                ledger.wall[cause] += amount
        left = max(0, unsure - gang)
        ledger.book(Cause.SPARE, spare * lasted, price, min(spare, left) * lasted)
        idle = held - gang - spare
        ledger.book(Cause.IDLE, idle * lasted, price, min(idle, max(0, left - spare)) * lasted)
        ledger.paid += held * lasted

    def _shared(self, span: Span, start: Us, end: Us) -> dict[Cause, Us]:
        """Share a piece of running time between steps, stalls and slowness."""
        life, lasted = span.of, end - start
        if life is None or span.cause is not Cause.PRODUCTIVE:
            return {span.cause: lasted}
        stalled = min(lasted, life.stalls_until(end) - life.stalls_until(start))
        speed = life.speeds[index - 1][1] if (index := _index(life.speeds, start)) else NORMAL
        good = (lasted - stalled) * speed // NORMAL
        return {
            Cause.PRODUCTIVE: good,
            Cause.CHECKPOINT_STALL: stalled,
            Cause.DEGRADED: lasted - stalled - good,
        }

    def _held(self, span: Span, at: Us) -> tuple[int, int, int, int]:
        """Return (GPUs, of them standing by, price, how many are guessed) from this moment on.

        A generation of more GPUs than were held when it was formed shows that a fact is missing.
        """
        index = bisect_right(self._since, at)
        life = span.of if span.cause in OF_MEMBERS else None
        if index:
            since, gpus, standby, price, unsure = self._holding[index - 1]
            formed = None if life is None else life.facts.formed
            if life is None or formed is None or since > formed or gpus >= life.gpus:
                return gpus, standby, price, unsure
        price = next((price for *_, price, _ in self._holding if price >= 0), -1)
        gpus = life.gpus if life is not None else 0
        return gpus, 0, price, gpus


class _Booking:
    """A book while it is being written."""

    def __init__(self) -> None:
        self.paid = 0
        self.amounts: Counter[tuple[Cause, int]] = Counter()  #: by (cause, price in micro-dollars)
        self.guessed: Counter[Cause] = Counter()
        self.wall: Counter[Cause] = Counter()

    def book(self, cause: Cause, amount: int, price: int, guessed: int) -> None:
        if amount:
            self.amounts[cause, price] += amount
            self.guessed[cause] += guessed

    def closed(self, since: datetime, until: datetime) -> Book:
        gpu, dollars, unpriced = dict.fromkeys(Cause, 0), dict.fromkeys(Cause, 0.0), 0
        for (cause, price), amount in sorted(self.amounts.items()):
            gpu[cause] += amount
            if price < 0:
                unpriced += amount
            else:
                dollars[cause] += amount * price / (HOUR * 1e6)
        wall = {cause: self.wall[cause] for cause in Cause}
        guessed = {cause: self.guessed[cause] for cause in Cause}
        return Book(since, until, self.paid, gpu, guessed, wall, dollars, unpriced)


# --- readings of an account ---------------------------------------------------------------------


def _lives(account: Account, keys: list[tuple[int, int]]) -> dict[tuple[int, int], Life]:
    """Return every generation with the step it began from."""
    lives = {}
    durable: int | None = None  #: the newest commit of the generations before
    for key in keys:
        facts = account.generations[key]
        known = facts.begin if facts.begin is not None else facts.step
        guess = durable
        if known is None and facts.first is not None:
            guess = facts.first[1] if durable is None else min(durable, facts.first[1])
        lives[key] = Life(facts, known if known is not None else guess, sure=known is not None)
        if facts.committed is not None:
            durable = facts.committed
    return lives


def _kept(
    keys: list[tuple[int, int]], lives: dict[tuple[int, int], Life]
) -> dict[tuple[int, int], tuple[int, bool] | None]:
    """Return the last step of each generation that no later one threw away; None: all kept."""
    kept: dict[tuple[int, int], tuple[int, bool] | None] = {}
    least: tuple[int, bool] | None = None
    for key in reversed(keys):
        kept[key] = least
        life = lives[key]
        if life.begin is not None and (least is None or life.begin < least[0]):
            least = (life.begin, life.sure)
    return kept


def _usual(account: Account) -> Usual:
    """Return how long things took where everything about them is known."""
    keys = sorted(account.generations)
    detect, restart, localise = [], [], []
    for key, behind in zip_longest(keys, keys[1:]):
        one = account.generations[key]
        if one.failed is not None and one.noticed is not None and one.noticed >= one.failed:
            detect.append(one.noticed - one.failed)
            after = account.generations[behind].formed if behind is not None else None
            if after is not None and behind is not None and behind[0] == key[0]:
                restart.append(max(0, after - one.noticed))
        if one.localising is not None and one.localised is not None:
            localise.append(max(0, one.localised - one.localising))
    return Usual(
        median_low(detect) if detect else DETECT,
        median_low(restart) if restart else RESTART,
        median_low(localise) if localise else LOCALISE,
    )


def _holding(account: Account) -> list[tuple[Us, int, int, int, int]]:
    """Return what was held from when on; the end of the only attempt lets go of everything."""
    levels = dict(account.held)
    for attempt, at in account.closed.items():
        others = (one for one, opened in account.opened.items() if one != attempt and opened <= at)
        alone = all(account.closed.get(one, at + 1) <= at for one in others)
        if alone and at not in levels:
            levels[at] = (0, 0, -1, 0)
    return [(at, *levels[at]) for at in sorted(levels)]


def _earliest(facts: GenerationFacts, otherwise: Us) -> Us:
    """Return when a generation was formed, or the first that is known of it."""
    if facts.formed is not None:
        return facts.formed
    first = facts.first[0] if facts.first is not None else None
    moments = (facts.started, facts.resumed, first, facts.failed, facts.done)
    return min([one for one in moments if one is not None], default=otherwise)


def _known(moment: Us | None) -> list[Us]:
    return [] if moment is None else [moment]


def _index(levels: list[tuple[Us, int]], at: Us) -> int:
    return bisect_right(levels, at, key=lambda one: one[0])


def _between(value: int, index: int, values: list[int], results: list[int]) -> int:
    """Interpolate linearly between two points, in whole numbers."""
    low, high = values[index - 1], values[index]
    rise = results[index] - results[index - 1]
    return results[index - 1] + (value - low) * rise // max(1, high - low)


def _united(intervals: Iterable[tuple[Us, Us]]) -> list[tuple[Us, Us]]:
    """Return intervals without overlaps, in order."""
    found: list[tuple[Us, Us]] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > start:
            found.append((start, end))
    return found


def _over(
    span: Span, intervals: list[tuple[Us, Us]], cause: Cause, *, guessed: bool
) -> Iterator[Span]:
    """Give those parts of restarting time another cause that lie in an interval."""
    if span.cause is not Cause.RESTART:
        yield span
        return
    cursor = span.start
    for start, end in intervals[max(0, bisect_right(intervals, (span.start, 0)) - 1) :]:
        if start >= span.end:
            break
        left, right = max(cursor, start), min(span.end, end)
        if right > left:
            if left > cursor:
                yield Span(cursor, left, span.cause, span.of, span.guessed)
            yield Span(left, right, cause, span.of, span.guessed or guessed)
            cursor = right
    if cursor < span.end:
        yield Span(cursor, span.end, span.cause, span.of, span.guessed)
