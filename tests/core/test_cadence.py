"""Checkpoint intervals: every formula gives the published figure, and the best is the best."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import cadence

MINUTE = 1 / 60  # hours are the unit


def test_young_and_daly_give_the_known_intervals() -> None:
    assert cadence.young(5 * MINUTE, 24) == pytest.approx(2.0)
    assert cadence.daly(5 * MINUTE, 24, 0.25) == pytest.approx(1.927056, abs=1e-6)
    assert cadence.daly(5 * MINUTE, 24) == pytest.approx(1.916667, abs=1e-6)
    assert cadence.daly_higher(5 * MINUTE, 24) == pytest.approx(1.944830, abs=1e-6)
    assert cadence.exact(5 * MINUTE, 24) == pytest.approx(1.944835, abs=1e-6)


def test_under_stress_the_approximations_part_and_the_exact_one_stands() -> None:
    assert cadence.young(0.25, 1) == pytest.approx(0.70711, abs=1e-5)
    assert cadence.daly(0.25, 1) == pytest.approx(0.45711, abs=1e-5)
    assert cadence.daly_higher(0.25, 1) == pytest.approx(0.55026, abs=1e-5)
    assert cadence.exact(0.25, 1) == pytest.approx(0.55122, abs=1e-5)
    assert cadence.daly_higher(2.5, 1) == 1


def test_the_exact_efficiency_agrees_with_the_monte_carlo_figures() -> None:
    assert cadence.efficiency(1, MINUTE, 0.5, 5.6) == pytest.approx(0.8204, abs=1e-4)
    assert cadence.efficiency(1, 5 * MINUTE, 0.5, 8.4) == pytest.approx(0.8149, abs=1e-4)
    assert cadence.efficiency(2, 5 * MINUTE, 0.25, 24) == pytest.approx(0.9094, abs=1e-4)


def test_the_expected_ettr_agrees_with_the_reliability_paper() -> None:
    per_minute = 2000 * 6.5e-3 / 1440
    assert cadence.expected_ettr(60, per_minute, 5) == pytest.approx(0.6840, abs=1e-4)
    assert cadence.expected_ettr(5, per_minute, 5) == pytest.approx(0.9323, abs=1e-4)
    # a job of 1,000 nodes that queues for a minute after each failure: the paper says 0.9
    queued = cadence.expected_ettr(30, per_minute / 2, 5, queue=1)
    assert queued == pytest.approx((1 - per_minute / 2 * 20) / (1 + per_minute / 2))


def test_an_efficiency_that_cannot_be_is_nought_and_not_an_error() -> None:
    assert cadence.efficiency(1e6, 1, 1, 1) == 0
    assert cadence.asynchronous(1e6, 1, stall=1, lag=0, detect=0, recover=0) == 0


@given(st.floats(1e-4, 3), st.floats(0.5, 500), st.floats(0, 2), st.floats(0.7, 1.4))
def test_no_other_interval_is_more_efficient_than_the_exact_one(
    blocking: float, mtbf: float, restart: float, factor: float
) -> None:
    best = cadence.exact(blocking, mtbf)
    here = cadence.efficiency(best, blocking, restart, mtbf)
    assert cadence.efficiency(best * factor, blocking, restart, mtbf) <= here * (1 + 1e-12)


@given(st.floats(0, 1e-4), st.floats(0.001, 60), st.floats(0, 60), st.floats(0.7, 1.4))
def test_no_other_interval_is_better_than_the_asynchronous_one(
    per_second: float, stall: float, lag: float, factor: float
) -> None:
    delays = {"stall": stall, "lag": lag, "detect": 10.0, "recover": 30.0}
    if per_second <= 1e-9:
        return
    best = cadence.asynchronous_best(per_second, **delays)
    assert best >= lag
    other = max(lag, best * factor)
    assert cadence.asynchronous(other, per_second, **delays) <= (
        cadence.asynchronous(best, per_second, **delays) + 1e-12
    )


@given(st.floats(0, 30))
def test_lambert_solves_its_equation(x: float) -> None:
    y = cadence.one_plus_lambert(x)
    assert 0 <= y < 1
    w = y - 1
    assert w * exp(w) == pytest.approx(-exp(-1 - x), rel=1e-9)


def test_lambert_keeps_its_digits_near_the_branch_point() -> None:
    # 1 + W0(-exp(-1 - x)) to 17 digits, by mpmath with 40
    for x, right in (
        (1e-14, 1.4142134957064292e-07),
        (1e-10, 1.4142068957142858e-05),
        (1e-4, 0.014075547672763),
        (1.0, 0.8414056604369606),
        (700.0, 1.0),
    ):
        assert cadence.one_plus_lambert(x) == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: cadence.young(1, 0),
        lambda: cadence.exact(-1, 1),
        lambda: cadence.efficiency(0, 1, 1, 1),
        lambda: cadence.one_plus_lambert(-0.1),
        lambda: cadence.asynchronous_best(0, stall=1, lag=1, detect=1, recover=1),
    ],
)
def test_what_makes_no_sense_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=r"\w"):
        call()
