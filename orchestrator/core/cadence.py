"""How often to write a checkpoint: the formulas, and the best interval of each.

All durations are in one unit (hours, seconds, as you like) and floats: these are the closed forms
of the literature, called by `outlook`, the benchmarks and the reports. `mtbf` is the mean time
between failures of the whole job, `blocking` how long a write stops it, `restart` detection and
recovery together.

Sources: Young 1974; Daly 2006 (first and higher order, exact efficiency); Kokolis et al. 2024,
"Revisiting reliability in large-scale machine learning research clusters" (expected ETTR).
"""

from __future__ import annotations

from math import exp, expm1, log1p, sqrt

NEWTON_MAX = 60


def young(blocking: float, mtbf: float) -> float:
    """Return Young's interval: the first approximation."""
    _refuse(blocking, mtbf)
    return sqrt(2 * blocking * mtbf)


def daly(blocking: float, mtbf: float, restart: float = 0.0) -> float:
    """Return Daly's first-order interval."""
    _refuse(blocking, mtbf)
    return sqrt(2 * blocking * (mtbf + restart)) - blocking


def daly_higher(blocking: float, mtbf: float) -> float:
    """Return Daly's higher-order interval; the MTBF itself if a write takes two of them."""
    _refuse(blocking, mtbf)
    if blocking >= 2 * mtbf:
        return mtbf
    x = blocking / (2 * mtbf)
    return sqrt(2 * blocking * mtbf) * (1 + sqrt(x) / 3 + x / 9) - blocking


def exact(blocking: float, mtbf: float) -> float:
    """Return the interval that maximises `efficiency`: M (1 + W0(-exp(-1 - C/M)))."""
    _refuse(blocking, mtbf)
    return mtbf * one_plus_lambert(blocking / mtbf)


def one_plus_lambert(x: float) -> float:
    """Return 1 + W0(-exp(-1 - x)) for x >= 0, without losing digits near the branch point.

    With y = 1 + W the defining equation becomes y + log(1 - y) + x = 0, whose left side falls and
    is concave on [0, 1): Newton from above converges, each step towards the root.
    """
    if x < 0:
        raise ValueError("the argument of W0 lies below its branch point")
    if x == 0:
        return 0.0
    if x > 30:
        return 1 - exp(-1 - x)
    # an upper bound: y = sqrt(2 x) for small x, and 1 - exp(-1 - x) < y < 1 for large
    y = min(sqrt(2 * x), -expm1(-1 - x) + exp(-2 * (1 + x)))
    for _ in range(NEWTON_MAX):
        left = y + log1p(-y) + x if y > 1e-4 else x - y * y * (0.5 + y / 3 + y * y / 4)
        step = left * (1 - y) / y
        new = min(max(y + step, y / 2), (y + 1) / 2)
        if abs(new - y) <= 1e-15 * y:
            return new
        y = new
    return y


def efficiency(interval: float, blocking: float, restart: float, mtbf: float) -> float:
    """Return the share of time that is kept work, exactly; failures strike restarts as well."""
    _refuse(blocking, mtbf)
    if interval <= 0:
        raise ValueError("an interval is above zero")
    exponent = (interval + blocking) / mtbf
    if exponent + restart / mtbf > 700:
        return 0.0
    return interval / (mtbf * exp(restart / mtbf) * expm1(exponent))


def expected_ettr(
    interval: float, per_time: float, start: float, *, blocking: float = 0.0, queue: float = 0.0
) -> float:
    """Return the expected ETTR as the reliability paper defines it.

    `per_time` is interruptions per unit of time, `start` what each needs before it makes progress,
    `queue` how long it waits for nodes.
    """
    lost = 1 - per_time * (start + interval / 2)
    return max(0.0, lost) / ((1 + blocking / interval) * (1 + per_time * queue))


def asynchronous(
    interval: float, per_time: float, *, stall: float, lag: float, detect: float, recover: float
) -> float:
    """Return the efficiency of checkpoints that stall a moment and are durable `lag` later."""
    lost = 1 - per_time * (detect + recover + interval / 2 + lag)
    return max(0.0, lost) / (1 + stall / interval)


def asynchronous_best(
    per_time: float, *, stall: float, lag: float, detect: float, recover: float
) -> float:
    """Return the interval that maximises `asynchronous`, never below the lag.

    With A = 1 - rate (d + R + P) the derivative vanishes at -s + sqrt(s^2 + 2 s A / rate). A save
    begins only after the one before is durable, so the lag is the least. Raises `ValueError` for a
    rate that is not above zero.
    """
    if per_time <= 0:
        raise ValueError("without failures no interval is best")
    left = max(0.0, 1 - per_time * (detect + recover + lag))
    return max(lag, sqrt(stall * stall + 2 * stall * left / per_time) - stall)


def waste(interval: float, blocking: float, mtbf: float) -> float:
    """Return the share of time that goes into writes and work done again; restarts apart."""
    return 1 - efficiency(interval, blocking, 0.0, mtbf)


def _refuse(blocking: float, mtbf: float) -> None:
    if mtbf <= 0 or blocking < 0:
        raise ValueError("the mean time between failures is above zero, a write takes 0 or longer")
