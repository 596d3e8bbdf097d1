"""The hang rule: from when a rank made progress, whether its silence is suspicious or a hang.

Two limits, both learned from the rank itself. Three times the 99th percentile of a phase plus one
second opens a *suspicion*: stacks are taken, nothing else happens. Ten times it, and never less
than a floor, is a *hang*. Both need 20 samples of that very phase; before that only the declared
limit of the phase counts. A checkpoint that takes long is a long checkpoint, not a stalled step:
each phase has samples of its own, and so have the first steps of each generation (compilation,
cold caches).

A rank that never said anything is not silent, it is mute: a script that sends no heartbeat must
not be ended for it, so its stall is reported and never acted upon (`mute_acts` changes that where
the job itself declared a sign that every rank gives).

Pure: no clock, no disk. `at` and `now` are seconds of one clock that never steps back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

SAMPLES_MIN = 20  #: of a phase before its own limits are believed
WINDOW = 512  #: samples that are remembered of a phase
PHASES_MAX = 32  #: a script that invents phase names cannot fill the memory
FIRST_STEPS = 3  #: steps of each generation that count as phase "first"
STEP = "step"


class Verdict(Enum):
    """What a silence amounts to."""

    FINE = "fine"
    SUSPECT = "suspect"  #: worth looking at
    HANG = "hang"  #: to be acted upon


@dataclass(frozen=True)
class HangPolicy:
    """What the job declared."""

    declared: Mapping[str, float]  #: seconds by phase; must hold "first", for unknown phases too
    floor: float  #: seconds; no learned limit is below it
    acts: bool = True  #: False for `progress: none`: a hang is only reported
    mute_acts: bool = False  #: a rank that never spoke may be judged too


@dataclass(frozen=True)
class Stall:
    """A silence, and what it is measured by."""

    verdict: Verdict
    since: float
    seconds: float
    phase: str
    step: int | None
    limit: float  #: seconds after which it is acted upon
    learned: bool  #: whether the limit was learned, or declared
    mute: bool = False  #: the rank never said anything in this attempt


@dataclass
class Samples:
    """How long each phase of one rank took; kept from generation to generation."""

    seconds: dict[str, deque[float]] = field(default_factory=dict)
    _p99: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, seconds: float) -> None:
        """Remember that `phase` took that long once."""
        if phase not in self.seconds and len(self.seconds) >= PHASES_MAX:
            return
        self.seconds.setdefault(phase, deque(maxlen=WINDOW)).append(seconds)
        self._p99.pop(phase, None)

    def p99(self, phase: str) -> float | None:
        """Return the 99th percentile of the recent samples; None below `SAMPLES_MIN` of them."""
        recent = self.seconds.get(phase)
        if recent is None or len(recent) < SAMPLES_MIN:
            return None
        if phase not in self._p99:
            ordered = sorted(recent)
            self._p99[phase] = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        return self._p99[phase]


class Watch:
    """Watches the progress of one rank."""

    def __init__(self, policy: HangPolicy, samples: Samples | None = None) -> None:
        """Watch under `policy`; call `begin` when the rank starts."""
        self._policy = policy
        self._samples = samples or Samples()
        self.spoke = False  #: in any generation
        self._since, self._phase, self._steps = 0.0, "init", 0
        self._step: int | None = None

    def begin(self, at: float) -> None:
        """Start over: the rank was started. What was learned is kept."""
        self._since, self._phase, self._steps = at, "init", 0
        self._step = None

    def excuse(self, seconds: float) -> None:
        """Leave out a time in which nobody looked: it proves nothing about the rank."""
        self._since += seconds

    def beat(self, at: float, phase: str, step: int | None) -> bool:
        """Take in a sign of life; say whether it is progress.

        In phase "step" only another step is; elsewhere each sign is, for it comes from the
        program's own thread.
        """
        self.spoke = True
        stepped = step != self._step
        if phase == self._phase == STEP and not stepped:
            return False
        self._samples.add(self.phase, max(0.0, at - self._since))
        self._since, self._phase, self._step = at, phase, step
        self._steps += phase == STEP and stepped
        return True

    def tick(self, at: float) -> None:
        """Take in a sign of progress that names no step."""
        self.beat(at, STEP, (self._step or 0) + 1)

    @property
    def phase(self) -> str:
        """The phase whose limits count now; the first steps of a generation are a phase."""
        first = self._phase == STEP and self._steps < FIRST_STEPS
        return "first" if first else self._phase

    def limit(self, phase: str) -> tuple[float, bool]:
        """Return after how many seconds a silence in `phase` is a hang, and if that was learned."""
        p99 = self._samples.p99(phase)
        if p99 is not None:
            return max(10 * p99, self._policy.floor), True
        return self._policy.declared.get(phase, self._policy.declared["first"]), False

    def pace(self) -> float:
        """Return the 99th percentile of the steps in seconds; 0 while it is not known."""
        return self._samples.p99(STEP) or 0.0

    def limits(self) -> dict[str, float]:
        """Return the present limit of every phase that is known."""
        phases = {*self._policy.declared, *self._samples.seconds, STEP}
        return {phase: self.limit(phase)[0] for phase in sorted(phases)}

    def judge(self, now: float) -> Stall:
        """Say what the present silence amounts to."""
        seconds = max(0.0, now - self._since)
        limit, learned = self.limit(self.phase)
        verdict = self._verdict(seconds, limit)
        return Stall(
            verdict=verdict,
            since=self._since,
            seconds=seconds,
            phase=self.phase,
            step=self._step,
            limit=limit,
            learned=learned,
            mute=not self.spoke,
        )

    def _verdict(self, seconds: float, limit: float) -> Verdict:
        policy = self._policy
        if not self.spoke and not policy.mute_acts:
            reported = policy.acts and seconds > limit
            return Verdict.SUSPECT if reported else Verdict.FINE
        if seconds > limit:
            return Verdict.HANG if policy.acts else Verdict.SUSPECT
        p99 = self._samples.p99(self.phase)
        suspicious = p99 is not None and seconds > 3 * p99 + 1.0
        return Verdict.SUSPECT if suspicious else Verdict.FINE


def first_to_stall(stalls: Mapping[int, Stall]) -> int | None:
    """Return the rank whose hang began first: the others may only be waiting for it.

    Ranks that wait for each other stall too, a little later; of equals the lower rank is named.
    """
    hung = [rank for rank, stall in stalls.items() if stall.verdict is Verdict.HANG]
    return min(hung, key=lambda rank: (stalls[rank].since, rank), default=None)
