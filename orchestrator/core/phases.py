"""Whether a cohort of nodes is chaotic or stable, how often it fails, and how sure that is.

One `Phases` is kept per cohort in the beliefs. It is moved on only by what happened: a failure,
another number of running machines, an announced change. Between those it is asked with `at(now)`,
a closed form: however often somebody looks, the answer is the same. It knows no rate beforehand:
base rate, ratio and phase are learned together (`phasegrid`), from a prior that can be pooled from
the provider's other cohorts (`pooling`).

A burst is one failure: what fails within an hour of an incident's beginning belongs to it, and
that hour counts as blind, so that merging does not bias the rate. docs/phases.md tells the model,
what it assumes, and what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import exp, expm1, log

from orchestrator.core import phasegrid
from orchestrator.core.phasegrid import Grid, Mass
from orchestrator.core.sparing import negative_binomial_quantile, poisson_tail

WEEK = timedelta(weeks=1)
MERGE = timedelta(hours=1)  #: failures this soon after an incident's beginning are part of it
SURE = 0.9  #: P(chaotic) from which a cohort is called chaotic
DOUBT = 0.5  #: below it a cohort that was called chaotic is so no longer
HANDED_OVER = 0.6  #: P(chaotic) of a cohort just delivered: most early weeks are bad ones
ANNOUNCED = 0.5  #: at least that after nodes were added, or work on drivers or fabric

STEP = 0.16  #: of the grid, in the logarithm of the base rate
#: 0.001 to 3.5 failures per node-week while stable; 2.6, 4.2, 5.8 or 9.4 times that in chaos; an
#: onset each 20 weeks, two weeks of chaos; the base rate wanders by 3 % in a week, 22 % in a year;
#: a chaos of about ten weeks is rather a new normal; a lasting improvement is rare, and seen soon.
GRID = Grid(
    rates=tuple(0.001 * exp(STEP * place) for place in range(52)),
    offsets=(6, 9, 11, 14),
    step=STEP,
    onset=0.05,
    recovery=0.5,
    wander=0.03,
    settle=0.01,
    ease=0.001,
)
TYPICAL_LOG = round(
    log(0.03), 2
)  #: failures per node-week, logarithm: the middle of the source's Table 4
TYPICAL_SD = 1.3  #: of that logarithm: a factor of 3.7 either way is ordinary


@dataclass(frozen=True, slots=True)
class RatePrior:
    """What is thought of the logarithm of a base rate before its cohort is looked at: normal."""

    mean: float = TYPICAL_LOG
    sd: float = TYPICAL_SD


TYPICAL = RatePrior()


@dataclass(frozen=True, slots=True)
class Forecast:
    """Failures to come."""

    expected: float
    upper: int  #: the quantile that was asked for: more come with at most 1 - share


@dataclass(frozen=True, slots=True)
class Phases:
    """What is held of one cohort at the moment `seen_at`."""

    seen_at: datetime
    nodes: float  #: machines that run, since `seen_at`
    mass: Mass
    incident_at: datetime | None = None  #: when the last incident began
    chaotic_since: datetime | None = None  #: called chaotic since; None while it is not
    incidents: int = 0
    exposure: float = 0.0  #: node-weeks watched

    # --- moving on ----------------------------------------------------------------------------

    @staticmethod
    def begin(at: datetime, nodes: float, p_chaotic: float = HANDED_OVER) -> Phases:
        """Return what is held of a cohort that was just delivered."""
        mass = phasegrid.prior(GRID, TYPICAL.mean, TYPICAL.sd, p_chaotic)
        return Phases(at, nodes, mass)

    def at(self, now: datetime) -> Phases:
        """Return what is held at `now` if nothing happened since; a past moment is `seen_at`."""
        if now <= self.seen_at:
            return self
        blind_until = self.seen_at if self.incident_at is None else self.incident_at + MERGE
        watched = now - max(self.seen_at, min(blind_until, now))
        weeks = (now - self.seen_at) / WEEK
        seeing = (watched / WEEK) / weeks
        mass = phasegrid.quiet(GRID, self.mass, self.nodes * seeing, weeks)
        since = self.chaotic_since if sum(mass.chaotic) >= DOUBT else None
        exposure = self.exposure + self.nodes * (watched / WEEK)
        return replace(self, seen_at=now, mass=mass, chaotic_since=since, exposure=exposure)

    def failed(self, at: datetime) -> Phases:
        """Return what is held after a node failed; a part of the last incident changes nothing."""
        if self.incident_at is not None and at < self.incident_at + MERGE:
            return self
        then = self.at(at)
        mass = phasegrid.failed(GRID, then.mass)
        then = replace(then, mass=mass, incident_at=then.seen_at, incidents=then.incidents + 1)
        return then._named()

    def exposed(self, at: datetime, nodes: float) -> Phases:
        """Return what is held now that another number of machines runs."""
        return self if nodes == self.nodes else replace(self.at(at), nodes=nodes)

    def announced(self, at: datetime) -> Phases:
        """Return what is held after a change that somebody made: it may have begun a chaos."""
        then = self.at(at)
        return replace(then, mass=phasegrid.at_least(then.mass, ANNOUNCED))._named()

    def counted(self, at_least: int, nodes: float, weeks: float) -> Phases:
        """Return what is held after a censored count: "20 or more in a week on 250 nodes".

        The count is taken as one of the present phase. Raises `ValueError` for one that is not
        above zero.
        """
        if at_least < 1 or nodes <= 0 or weeks <= 0:
            raise ValueError("a censored count needs nodes, a duration and at least one failure")
        exposed = nodes * weeks
        stable = [poisson_tail(at_least - 1, exposed * rate) for rate in GRID.rates]
        ratios = GRID.ratios
        chaotic = [
            poisson_tail(at_least - 1, exposed * rate * ratio)
            for rate in GRID.rates
            for ratio in ratios
        ]
        return replace(self, mass=phasegrid.weighed(GRID, self.mass, stable, chaotic))._named()

    def informed(self, prior: RatePrior) -> Phases:
        """Return the same evidence under another prior of the base rate."""
        if prior == TYPICAL:
            return self
        logs = [log(rate) for rate in GRID.rates]
        new = [-0.5 * ((x - prior.mean) / prior.sd) ** 2 for x in logs]
        old = [-0.5 * ((x - TYPICAL.mean) / TYPICAL.sd) ** 2 for x in logs]
        top = max(a - b for a, b in zip(new, old, strict=True))
        ratio = [exp(a - b - top) for a, b in zip(new, old, strict=True)]
        spread = [one for one in ratio for _ in GRID.offsets]
        return replace(self, mass=phasegrid.weighed(GRID, self.mass, ratio, spread))

    def _named(self) -> Phases:
        """Return this with `chaotic_since` as P(chaotic) says."""
        if self.chaotic_since is None and self.p_chaotic > SURE:
            return replace(self, chaotic_since=self.seen_at)
        if self.chaotic_since is not None and self.p_chaotic < DOUBT:
            return replace(self, chaotic_since=None)
        return self

    # --- asking -------------------------------------------------------------------------------

    @property
    def p_chaotic(self) -> float:
        """How probable it is that the cohort is chaotic."""
        return sum(self.mass.chaotic)

    @property
    def rate(self) -> float:
        """Failures per node-week to be expected now: the mean of what is thought possible."""
        calm = sum(p * rate for p, rate in zip(self.mass.stable, GRID.rates, strict=True))
        return calm + sum(p * rate for p, rate in zip(self.mass.chaotic, _WILD, strict=True))

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """Return the bounds between which the present rate lies with that probability."""
        weights = [*self.mass.stable, *[0.0] * max(GRID.offsets)]
        kinds = len(GRID.offsets)
        for place, p in enumerate(self.mass.chaotic):
            weights[place // kinds + GRID.offsets[place % kinds]] += p
        tail = (1 - share) / 2
        return _quantile(weights, tail), _quantile(weights, 1 - tail)

    @property
    def base_rate(self) -> float:
        """Failures per node-week while stable: the geometric mean of what is possible."""
        return exp(self.base()[0])

    def base(self) -> tuple[float, float]:
        """Return mean and variance of the base rate's logarithm."""
        kinds = len(GRID.offsets)
        rows = zip(*[iter(self.mass.chaotic)] * kinds, strict=True)
        marginal = [p + sum(row) for p, row in zip(self.mass.stable, rows, strict=True)]
        logs = [log(rate) for rate in GRID.rates]
        mean = sum(p * x for p, x in zip(marginal, logs, strict=True))
        return mean, sum(p * (x - mean) ** 2 for p, x in zip(marginal, logs, strict=True))

    def count(self, weeks: float, nodes: float | None = None) -> tuple[float, float]:
        """Return mean and variance of the incidents in the coming weeks, on these nodes or on all.

        The phase may change meanwhile. The variance is that of the mixture: the rate is not known.
        """
        exposed = (self.nodes if nodes is None else nodes) * weeks
        if exposed <= 0:
            return 0.0, 0.0
        from_calm, from_wild = _time_in_chaos(weeks, 0.0), _time_in_chaos(weeks, 1.0)
        mean = square = 0.0
        kinds, ratios = len(GRID.offsets), GRID.ratios
        usual = sum(ratios) / kinds
        for place, rate in enumerate(GRID.rates):
            count = exposed * rate * (1 + (usual - 1) * from_calm)
            mean += self.mass.stable[place] * count
            square += self.mass.stable[place] * count * count
            for kind, ratio in enumerate(ratios):
                p = self.mass.chaotic[place * kinds + kind]
                count = exposed * rate * (1 + (ratio - 1) * from_wild)
                mean += p * count
                square += p * count * count
        return mean, mean + max(0.0, square - mean * mean)

    def forecast(self, weeks: float, share: float = 0.99, nodes: float | None = None) -> Forecast:
        """Return how many incidents to expect: a negative binomial of the mixture's moments."""
        mean, variance = self.count(weeks, nodes)
        if mean == 0:
            return Forecast(0.0, 0)
        return Forecast(mean, negative_binomial_quantile(mean, variance / mean, share))


_WILD = tuple(rate * ratio for rate in GRID.rates for ratio in GRID.ratios)


def _time_in_chaos(weeks: float, p_now: float) -> float:
    """Return the share of the coming weeks that is expected to be chaotic."""
    speed = GRID.onset + GRID.recovery
    settled = GRID.onset / speed
    return settled + (p_now - settled) * -expm1(-speed * weeks) / (speed * weeks)


def _quantile(weights: list[float], share: float) -> float:
    """Return the rate below which that share lies; mass is spread evenly within a step."""
    below = 0.0
    for place, weight in enumerate(weights):
        if weight > 0 and below + weight >= share:
            inside = (share - below) / weight
            return GRID.rates[0] * exp(STEP * (place - 0.5 + inside))
        below += weight
    return GRID.rates[0] * exp(STEP * (len(weights) - 0.5))
