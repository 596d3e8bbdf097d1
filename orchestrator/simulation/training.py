"""How far a run has trained, and what of it is durable: in closed form, over any time.

A cycle is `interval` seconds of training and `stall` seconds of standing still; the checkpoint of
a cycle shows the state at the end of its training and is durable `lag` seconds after its stall.
Work is counted in seconds of undisturbed training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KEPT = 3  #: newest durable checkpoints that are remembered until they are taken


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
