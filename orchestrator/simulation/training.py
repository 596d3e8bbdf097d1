"""How far a run has trained, and what of it is durable: in closed form, over any time.

A cycle is `interval` seconds of training and `stall` seconds of standing still; the checkpoint of
a cycle shows the state at the end of its training and is durable `lag` seconds after its stall.
Work is counted in seconds of undisturbed training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from orchestrator.simulation.agenda import BEGIN

EPOCH = BEGIN.timestamp()
KEPT = 3  #: newest durable checkpoints that are remembered until they are taken


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which nothing about the training changed."""

    start: float
    end: float
    work: float  #: at the start
    trained: float  #: seconds of it
    stalled: float  #: seconds of it
    speed: float
    cycle: float  #: seconds of training between two stalls; infinite without checkpoints
    stall: float

    @property
    def done(self) -> float:
        """The work at the end."""
        return self.work + self.speed * self.trained

    def reached(self, work: float) -> float:
        """Return when this work was done: it must lie within what was done here."""
        trained = (work - self.work) / self.speed if self.speed else 0.0
        stalls = max(0.0, -(-trained // self.cycle) - 1)  # of cycles that ended before
        return min(self.end, self.start + trained + stalls * self.stall)


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint: the work in it, and when it became (or will become) durable."""

    work: float
    at: float


@dataclass(slots=True)
class Training:
    """The training of one run."""

    interval: float
    stall: float
    lag: float
    work: float = 0.0  #: at `since`
    since: float | None = None  #: running since; None: it stands
    speed: float = 1.0
    committing: bool = True
    coming: list[Saved] = field(default_factory=list)  #: begun before `since`, not durable yet
    trained: float = 0.0  #: seconds of training at any speed, in all
    stalled: float = 0.0  #: seconds of standing for checkpoints, in all
    slowed: float = 0.0  #: seconds lost by going slowly, in all
    stretches: list[Stretch] = field(default_factory=list)  #: everything so far, in order

    def start(self, now: float, work: float) -> None:
        """Begin to train from this much work."""
        self.work, self.since, self.coming = work, now, []

    def stop(self, now: float) -> list[Saved]:
        """Stop; return the newest checkpoints that became durable, oldest first."""
        saved = self.settle(now)
        self.since, self.coming = None, []
        return saved

    def at(self, now: float) -> float:
        """Return the work done until now."""
        return self.work + self.speed * self._split(now)[0]

    def settle(self, now: float) -> list[Saved]:
        """Begin a new cycle now; return the newest checkpoints that became durable."""
        if self.since is None:
            return []
        trained, stalled = self._split(now)
        begun = [*self.coming, *self._begun(now)]
        if now > self.since:
            cycle = self.interval if self.committing else inf
            went = (self.work, trained, stalled, self.speed, cycle, self.stall)
            self.stretches.append(Stretch(self.since, now, *went))
        self.work += self.speed * trained
        self.trained += trained
        self.stalled += stalled
        self.slowed += (1.0 - self.speed) * trained
        self.since = now
        self.coming = [one for one in begun if one.at > now]
        return [one for one in begun if one.at <= now][-KEPT:]

    def _split(self, now: float) -> tuple[float, float]:
        """Return (seconds trained, seconds stalled) since `since`."""
        if self.since is None:
            return 0.0, 0.0
        elapsed = now - self.since
        if not self.committing:
            return elapsed, 0.0
        whole, rest = divmod(elapsed, self.interval + self.stall)
        trained = whole * self.interval + min(rest, self.interval)
        return trained, elapsed - trained

    def _begun(self, now: float) -> list[Saved]:
        if self.since is None or not self.committing:
            return []
        period = self.interval + self.stall
        whole, rest = divmod(now - self.since, period)
        last = int(whole) + (rest >= self.interval)
        hidden = int((self.stall + self.lag) // period) + 1  # begun, and not durable yet
        first = max(1, last - hidden - KEPT)
        return [
            Saved(self.work + self.speed * n * self.interval, self.since + n * period + self.lag)
            for n in range(first, last + 1)
        ]


@dataclass(slots=True)
class Trip:
    """How far the ranks of one generation come: what its first members note when it ends."""

    clock: Training
    step: float  #: seconds of one undisturbed step
    began_at: float
    work: float = field(init=False)  #: at the beginning
    stood: float = field(init=False)  #: seconds that the run had stalled before

    def __post_init__(self) -> None:
        """Begin where the clock stands."""
        self.work, self.stood = self.clock.work, self.clock.stalled

    @property
    def stalled(self) -> float:
        """Seconds of its checkpoint stalls, as far as the clock was settled."""
        return self.clock.stalled - self.stood

    def facts(self, now: float) -> dict[str, object]:
        """Return the data of `ranks-ended`, for ranks that stand since `now`."""
        begun, last = (int(work / self.step) for work in (self.work, self.clock.work))
        if last <= begun:
            return {}
        first_at = self.began_at + self.step / max(self.clock.speed, 0.01)
        return {
            "first_step": begun + 1,
            "first_step_at": EPOCH + min(first_at, now),
            "step": last,
            "step_at": EPOCH + now,
            "stalled_seconds": self.stalled,
        }
