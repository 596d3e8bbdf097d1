"""Spares: the quantiles are those of the distributions, and the price decides how many."""

from __future__ import annotations

from math import exp, factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import sparing


@pytest.mark.parametrize("per_day", [1.17e-3, 1.21e-3, 1.25e-3])
def test_the_binomial_gives_the_published_spares(per_day: float) -> None:
    sizes = (128, 256, 512, 1024)
    found = [sparing.binomial_quantile(size, per_day, 0.99) for size in sizes]
    assert found == [2, 2, 3, 4]


def test_poisson_asks_for_half_of_what_a_burst_needs() -> None:
    """On real traces the 99th percentile was 31 where Poisson said 17."""
    assert sparing.poisson_quantile(9, 0.99) == 17
    assert sparing.negative_binomial_quantile(9, sparing.BURSTY, 0.99) == 25
    assert sparing.negative_binomial_quantile(9, 5, 0.99) == 31


@given(st.floats(0.01, 50), st.integers(0, 80))
def test_the_poisson_tail_is_the_sum_of_its_terms(mean: float, k: int) -> None:
    below = sum(mean**i / factorial(i) * exp(-mean) for i in range(k + 1))
    assert sparing.poisson_tail(k, mean) == pytest.approx(1 - below, abs=1e-9)


@given(st.floats(0.01, 50), st.floats(1, 8), st.floats(0.5, 0.9999))
def test_more_spread_and_more_certainty_never_ask_for_fewer(
    mean: float, spread: float, share: float
) -> None:
    few = sparing.negative_binomial_quantile(mean, spread, share)
    assert few <= sparing.negative_binomial_quantile(mean, spread, share + (1 - share) / 2)
    if share >= 0.99 and mean >= 1:
        assert sparing.poisson_quantile(mean, share) <= few + 1


def test_a_spread_of_one_is_poisson() -> None:
    assert sparing.negative_binomial_quantile(4, 1.0, 0.99) == sparing.poisson_quantile(4, 0.99)


def test_nothing_that_fails_needs_no_spare() -> None:
    assert sparing.poisson_quantile(0, 0.99) == 0
    assert sparing.negative_binomial_quantile(0, 3, 0.99) == 0
    assert sparing.binomial_quantile(10, 0, 0.99) == 0
    assert sparing.binomial_quantile(10, 1, 0.99) == 10
    assert sparing.cheapest(0, 3, 100, 10) == 0


def test_a_finite_pool_counts_its_spares_among_those_that_fail() -> None:
    week = 168.0
    calm = sparing.finite_pool(250, 0.012 / week, 72, 0.99)
    wild = sparing.finite_pool(13, 2.4 / week, 24, 0.99)
    assert calm == 5  # 250 nodes, three failures a week, three days of repair
    assert wild == 11  # 13 nodes, thirty failures a week, a day of repair


def test_the_price_decides() -> None:
    mean = 0.5
    counts = [sparing.cheapest(mean, 3, gang, 50) for gang in (1, 10, 100, 1000)]
    assert counts == sorted(counts)
    assert counts[0] == 0  # a spare costs as much as the only node whose waiting it saves
    assert sparing.cheapest(mean, 3, 1000, 2) == 2  # never more than there are
    # by trying: no other count is cheaper
    for gang in (10, 100):
        best = sparing.cheapest(mean, 1, gang, 50)
        costs = [k + gang * sparing.poisson_tail(k, mean) for k in range(51)]
        assert costs[best] == pytest.approx(min(costs))


def test_a_share_lies_between_nought_and_one() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        sparing.poisson_quantile(1, 1.0)
