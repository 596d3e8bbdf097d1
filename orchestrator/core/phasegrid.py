"""The arithmetic of the phase filter: exact Bayes on a grid of base rates, ratios and two phases.

Used by `phases` alone. In each cell (base rate r, ratio k) a node fails r times a week while its
cohort is stable and k r times while it is chaotic; the cohort moves between the two as a Markov
chain, and failures of N nodes are a Poisson process of N times that rate. Between failures a cell
is a linear equation of two unknowns with a closed solution, so a jump costs the same however long
it is. The ratio belongs to a chaotic era, so it is drawn anew at each onset. What changes for good
becomes the new normal: the base rate wanders slowly (a random walk of its logarithm), a chaos may
*settle* (its rate is the base rate from then on), a cohort may *ease* (its base rate falls).

Pure lists of floats, no numpy: the core runs where only Python is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, log, sqrt

STRIDE = 1.0  #: weeks; a longer jump is cut into equal parts, between which the base rate wanders
CACHED = 256  #: numbers of nodes whose cells are kept ready

Cells = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """What the filter thinks possible. Rates are per node-week, speeds per week."""

    rates: tuple[float, ...]  #: base rates, ascending, equal steps of the logarithm
    offsets: tuple[int, ...]  #: ratios, as numbers of those steps
    step: float  #: of the logarithm of the base rate
    onset: float  #: stable -> chaotic, per week
    recovery: float  #: chaotic -> stable, per week
    wander: float = 0.0  #: standard deviation of the base rate's logarithm after one week
    settle: float = 0.0  #: a chaos becomes the new normal, per week
    ease: float = 0.0  #: a stable base rate falls by one of the ratios, per week

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times more often nodes fail in each kind of chaotic era."""
        return tuple(exp(self.step * offset) for offset in self.offsets)


@dataclass(frozen=True, slots=True)
class Mass:
    """The probabilities: one per base rate while stable, one per (base rate, ratio) in chaos."""

    stable: tuple[float, ...]
    chaotic: tuple[float, ...]  #: row by row: all ratios of the first base rate, ...


def prior(grid: Grid, mean_log: float, sd_log: float, p_chaotic: float) -> Mass:
    """Return the mass before anything was seen: a log-normal base rate, every ratio alike."""
    weights = [exp(-0.5 * ((log(rate) - mean_log) / sd_log) ** 2) for rate in grid.rates]
    total, kinds = sum(weights), len(grid.offsets)
    stable = tuple(w / total * (1 - p_chaotic) for w in weights)
    chaotic = tuple(w / total * p_chaotic / kinds for w in weights for _ in range(kinds))
    return Mass(stable, chaotic)


def quiet(grid: Grid, mass: Mass, nodes: float, weeks: float) -> Mass:
    """Return the mass after that long without a failure of any of `nodes` nodes."""
    if weeks <= 0:
        return mass
    parts = ceil(weeks / STRIDE)
    for _ in range(parts):
        mass = _drifted(grid, _silent(grid, mass, nodes, weeks / parts), weeks / parts)
    return mass


def failed(grid: Grid, mass: Mass) -> Mass:
    """Return the mass after one failure: each cell weighed by its rate."""
    kinds = len(grid.offsets)
    stable = [p * rate for p, rate in zip(mass.stable, grid.rates, strict=True)]
    rates = _chaotic_rates(grid)
    chaotic = [p * rate for p, rate in zip(mass.chaotic, rates, strict=True)]
    assert len(chaotic) == kinds * len(stable)
    return _normal(stable, chaotic)


def weighed(grid: Grid, mass: Mass, stable: list[float], chaotic: list[float]) -> Mass:
    """Return the mass after evidence: a likelihood per base rate, and per (base rate, ratio)."""
    return _normal(
        [p * w for p, w in zip(mass.stable, stable, strict=True)],
        [p * w for p, w in zip(mass.chaotic, chaotic, strict=True)],
    )


def at_least(mass: Mass, p_chaotic: float) -> Mass:
    """Return the mass with P(chaotic) lifted to at least that."""
    now = sum(mass.chaotic)
    if now >= p_chaotic:
        return mass
    up, down = p_chaotic / now, (1 - p_chaotic) / (1 - now)
    return Mass(tuple(p * down for p in mass.stable), tuple(p * up for p in mass.chaotic))


def _silent(grid: Grid, mass: Mass, nodes: float, weeks: float) -> Mass:
    """Solve every cell's equation over a time without failures."""
    into, back, kinds = grid.onset, grid.recovery, len(grid.offsets)
    share = 1 / kinds
    stable: list[float] = []
    chaotic: list[float] = []
    cells = iter(_cells(grid, nodes))
    old = iter(mass.chaotic)
    for p in mass.stable:
        before, after = p * share, 0.0
        for _ in range(kinds):
            middle, half, root = next(cells)
            slow, fast = exp((middle + root) * weeks), exp((middle - root) * weeks)
            even, odd = (slow + fast) / 2, (slow - fast) / (2 * root)
            c = next(old)
            tilt = half * odd
            after += before * (even + tilt) + c * back * odd
            chaotic.append(c * (even - tilt) + before * into * odd)
        stable.append(after)
    return _normal(stable, chaotic)


@lru_cache(maxsize=CACHED)
def _cells(grid: Grid, nodes: float) -> Cells:
    """Return (mean, half difference, half distance of the eigenvalues) of each cell's matrix."""
    found = []
    ratios = grid.ratios
    for rate in grid.rates:
        calm = -grid.onset - nodes * rate
        for ratio in ratios:
            wild = -grid.recovery - nodes * rate * ratio
            half = (calm - wild) / 2
            root = sqrt(half * half + grid.onset * grid.recovery)
            found.append(((calm + wild) / 2, half, root))
    return tuple(found)


@lru_cache(maxsize=8)
def _chaotic_rates(grid: Grid) -> tuple[float, ...]:
    ratios = grid.ratios
    return tuple(rate * ratio for rate in grid.rates for ratio in ratios)


def _drifted(grid: Grid, mass: Mass, weeks: float) -> Mass:
    """Let base rates change: wander to their neighbours, settle upwards, ease downwards."""
    kinds = len(grid.offsets)
    if grid.wander > 0:
        w = grid.wander**2 * weeks / (2 * grid.step**2)
        mass = Mass(_spread(mass.stable, w, 1), _spread(mass.chaotic, w, kinds))
    if grid.settle == 0 == grid.ease:
        return mass
    last, up, down = len(grid.rates) - 1, grid.settle * weeks, grid.ease * weeks / kinds
    stable = [p * (1 - down * kinds) for p in mass.stable]
    for kind, offset in enumerate(grid.offsets):
        for place, p in enumerate(mass.chaotic[kind::kinds]):
            stable[min(place + offset, last)] += p * up
        for place, p in enumerate(mass.stable):
            stable[max(place - offset, 0)] += p * down
    return Mass(tuple(stable), tuple(p * (1 - up) for p in mass.chaotic))


def _spread(old: tuple[float, ...], w: float, width: int) -> tuple[float, ...]:
    """Exchange the share `w` with the entries `width` below and above."""
    above = old[width:] + old[-width:]
    below = old[:width] + old[:-width]
    keep = 1 - 2 * w
    return tuple(keep * p + w * (a + b) for p, a, b in zip(old, above, below, strict=True))


def _normal(stable: list[float], chaotic: list[float]) -> Mass:
    scale = 1 / (sum(stable) + sum(chaotic))
    return Mass(tuple(p * scale for p in stable), tuple(p * scale for p in chaotic))
