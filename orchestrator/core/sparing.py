"""How many nodes to keep ready: standbys and spares, from rates that are not known exactly.

Failures come in bursts and the rate itself is uncertain, so counts are over-dispersed: a negative
binomial, with the Poisson distribution as its limit. Real traces have asked for twice what Poisson
allows (99th percentile 31 against 17). The target is a probability, or better a price: one more
node is kept as long as it costs less than the waiting that it saves (a newsvendor).

Sources: ByteRobust (2025), table 5, for the binomial of a finite pool.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma, log, log1p

COUNT_MAX = 100_000  #: no quantile is looked for beyond
BURSTY = 3.0  #: variance over mean of nodes down at once, as measured on real traces


def poisson_tail(k: int, mean: float) -> float:
    """Return P(X > k) of a Poisson count, also where it is tiny."""
    if mean <= 0:
        return 0.0
    if k < 0:
        return 1.0
    if k < mean:
        return max(0.0, 1 - sum(exp(_log_poisson(i, mean)) for i in range(k + 1)))
    total, term, i = 0.0, exp(_log_poisson(k + 1, mean)), k + 1
    while term > total * 1e-17 and term > 0:
        total, i = total + term, i + 1
        term *= mean / i
    return total


def poisson_quantile(mean: float, share: float) -> int:
    """Return the smallest k with P(X <= k) >= share of a Poisson count."""
    return _quantile(lambda k: _log_poisson(k, mean), share) if mean > 0 else 0


def negative_binomial_quantile(mean: float, spread: float, share: float) -> int:
    """Return the smallest k with P(X <= k) >= share; `spread` is variance over mean.

    A spread of 1 (or less: there is no such count) is Poisson.
    """
    if mean <= 0:
        return 0
    if spread <= 1 + 1e-9:
        return poisson_quantile(mean, share)
    return _quantile(_log_negative_binomial(mean, spread), share)


def binomial_quantile(trials: int, p: float, share: float) -> int:
    """Return the smallest k with P(X <= k) >= share of `trials` nodes, each down with `p`."""
    if p <= 0:
        return 0
    if p >= 1:
        return trials

    def log_term(k: int) -> float:
        ways = lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1)
        return ways + k * log(p) + (trials - k) * log1p(-p)

    return min(trials, _quantile(log_term, share, most=trials))


def finite_pool(gang: int, rate: float, repair: float, share: float) -> int:
    """Return the spares k that keep a gang whole with that probability.

    `rate` is failures per node and unit of time, `repair` the mean time away in that unit. Each of
    the gang + k nodes is down with repair * rate / (1 + repair * rate), independently.
    """
    p = rate * repair / (1 + rate * repair)
    k = 0
    while binomial_quantile(gang + k, p, share) > k:
        k += 1
    return k


def cheapest(mean: float, spread: float, shortage: float, most: int) -> int:
    """Return how many to keep, at most `most`, if nodes missing are a count of this mean.

    A node kept costs 1 per unit of time. A shortage, of however many, costs `shortage`: a gang
    that needs all its nodes waits as a whole, so that is its size.
    """
    if mean <= 0 or most <= 0:
        return 0
    log_term = _log_negative_binomial(mean, spread) if spread > 1 + 1e-9 else None
    tail, best, least = 1.0, 0, float("inf")
    for k in range(most + 1):
        tail -= exp(log_term(k) if log_term is not None else _log_poisson(k, mean))
        cost = k + shortage * max(0.0, tail)
        if cost < least - 1e-12:
            best, least = k, cost
    return best


def _log_poisson(k: int, mean: float) -> float:
    return k * log(mean) - mean - lgamma(k + 1)


def _log_negative_binomial(mean: float, spread: float) -> Callable[[int], float]:
    size, p = mean / (spread - 1), 1 / spread

    def log_term(k: int) -> float:
        ways = lgamma(k + size) - lgamma(size) - lgamma(k + 1)
        return ways + size * log(p) + k * log1p(-p)

    return log_term


def _quantile(log_term: Callable[[int], float], share: float, most: int = COUNT_MAX) -> int:
    if not 0 < share < 1:
        raise ValueError("a share lies between 0 and 1")
    below = 0.0
    for k in range(most + 1):
        below += exp(log_term(k))
        if below >= share:
            return k
    return most
