"""Phases: the known figures, the learning, and that looking changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import exp, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import phasegrid
from orchestrator.core.phasegrid import Grid, Mass
from orchestrator.core.phases import GRID, MERGE, TYPICAL, WEEK, Phases, RatePrior
from orchestrator.core.pooling import pooled

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def lived(rate: float, weeks: float, *, nodes: float = 100, seed: int = 1) -> Phases:
    """Return what is held after that many weeks with `rate` failures a week."""
    dice, phases, now = random.Random(seed), Phases.begin(BEGIN, nodes), BEGIN
    while True:
        now += WEEK * dice.expovariate(rate)
        if now > BEGIN + WEEK * weeks:
            return phases.at(BEGIN + WEEK * weeks)
        phases = phases.failed(now)


def test_with_known_rates_it_is_the_two_state_filter() -> None:
    """Formula 11: one quiet day, then a failure, of 250 nodes with rates .012 and .08."""
    known = Grid((0.012,), (1,), log(0.08 / 0.012), onset=0.1, recovery=0.5, wander=0)
    mass = phasegrid.quiet(known, Mass((5 / 6,), (1 / 6,)), 250, 1 / 7)
    assert sum(mass.chaotic) == pytest.approx(0.021359, abs=1e-6)
    assert sum(phasegrid.failed(known, mass).chaotic) == pytest.approx(0.127021, abs=1e-6)


def test_the_closed_form_agrees_with_small_steps_of_the_differential_equation() -> None:
    known = Grid((0.012,), (1,), log(0.08 / 0.012), onset=0.1, recovery=0.5, wander=0)
    p, steps, weeks = 1 / 6, 200_000, 0.8
    for _ in range(steps):
        p += (0.1 * (1 - p) - 0.5 * p - 250 * (0.08 - 0.012) * p * (1 - p)) * weeks / steps
    mass = phasegrid.quiet(known, Mass((5 / 6,), (1 / 6,)), 250, weeks)
    assert sum(mass.chaotic) == pytest.approx(p, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 400), st.floats(0, 60), st.integers(0, 5))
def test_probabilities_stay_probabilities(nodes: float, weeks: float, failures: int) -> None:
    mass = phasegrid.quiet(GRID, phasegrid.prior(GRID, -3.5, 1.3, 0.6), nodes, weeks)
    for _ in range(failures):
        mass = phasegrid.failed(GRID, mass)
    everything = (*mass.stable, *mass.chaotic)
    assert sum(everything) == pytest.approx(1)
    assert min(everything) >= 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 2), max_size=6), st.floats(2, 30))
def test_an_answer_does_not_depend_on_how_often_somebody_looked(
    looks: list[float], days: float
) -> None:
    phases = Phases.begin(BEGIN, 100).failed(BEGIN + DAY).failed(BEGIN + 4 * DAY)
    before, then = replace(phases), phases.seen_at + days * DAY
    undisturbed = phases.at(then)
    for look in looks:
        phases.at(phases.seen_at + look * DAY)  # looking returns; it moves nothing on
    assert phases == before
    assert phases.at(then) == undisturbed


def test_two_jumps_come_near_to_one() -> None:
    """Between events the equation is exact; only the wandering of the base rate is stepped."""
    phases = lived(3, 26)
    once, later = phases.at(phases.seen_at + 5 * DAY), phases.at(phases.seen_at + 2 * DAY)
    twice = later.at(phases.seen_at + 5 * DAY)
    assert once.p_chaotic == pytest.approx(twice.p_chaotic, rel=0.03)
    assert once.rate == pytest.approx(twice.rate, rel=0.03)


def test_a_steady_rate_is_learned_and_called_stable() -> None:
    for rate in (0.5, 3.0, 10.0):
        phases = lived(rate, 40, seed=int(rate * 10))
        low, high = phases.interval()
        assert low < rate / 100 < high
        assert phases.chaotic_since is None
        assert phases.base_rate == pytest.approx(rate / 100, rel=0.4)


def test_six_times_the_failures_are_called_chaotic_within_days_and_calm_again_after() -> None:
    phases = lived(3, 26)
    onset = now = phases.seen_at
    while phases.chaotic_since is None:
        now += WEEK / 18
        phases = phases.failed(now)
    assert now < onset + 6 * DAY
    assert phases.interval()[0] > 0.03  # each node fails more often than it did
    for _ in range(12):
        now += WEEK / 3
        phases = phases.failed(now)
    assert phases.chaotic_since is None
    assert phases.base_rate == pytest.approx(0.03, rel=0.5)


def test_a_quiet_time_alone_ends_a_chaos() -> None:
    phases = lived(3, 20)
    for hour in range(1, 80, 6):
        phases = phases.failed(phases.seen_at + 6 * HOUR if hour > 1 else phases.seen_at + HOUR)
    assert phases.chaotic_since is not None
    assert phases.at(phases.seen_at + 4 * WEEK).chaotic_since is None


def test_what_changed_for_good_becomes_the_new_normal() -> None:
    phases = lived(3, 26)
    assert phases.base_rate == pytest.approx(0.03, rel=0.4)
    dice, now, story = random.Random(5), phases.seen_at, []
    while now < BEGIN + 46 * WEEK:
        now += WEEK * dice.expovariate(20)
        phases = phases.failed(now)
        story.append((now, phases.p_chaotic))
    month = [p for at, p in story if at < BEGIN + 30 * WEEK]
    assert max(month) > 0.9  # four bad weeks are a chaos
    assert phases.p_chaotic < 0.1  # twenty are how it is now
    assert phases.base_rate == pytest.approx(0.2, rel=0.3)
    eased = phases
    while now < BEGIN + 54 * WEEK:
        now += WEEK * dice.expovariate(3)
        eased = eased.failed(now)
    assert eased.rate == pytest.approx(0.03, rel=0.5)


def test_a_burst_is_one_failure_and_the_rate_is_not_biased_by_it() -> None:
    phases = lived(3, 26)
    first = phases.failed(phases.seen_at + DAY)
    burst = first
    for minute in range(1, 60, 5):
        burst = burst.failed(first.seen_at + minute * timedelta(minutes=1))
    assert burst == first
    assert burst.failed(first.seen_at + MERGE).incidents == first.incidents + 1
    busy = lived(30, 52, nodes=12.5, seed=3)  # one in six falls into the hour of another
    assert busy.rate == pytest.approx(2.4, rel=0.2)


def test_an_announced_change_makes_chaos_as_likely_as_not() -> None:
    phases = lived(3, 26)
    assert phases.p_chaotic < 0.2
    told = phases.announced(phases.seen_at)
    assert told.p_chaotic == pytest.approx(0.5)
    assert told.announced(told.seen_at) == told
    assert told.at(told.seen_at + 3 * WEEK).p_chaotic < 0.2


def test_exposure_that_halves_doubles_what_a_failure_says() -> None:
    many, few = Phases.begin(BEGIN, 200), Phases.begin(BEGIN, 200).exposed(BEGIN, 100)
    for week in range(1, 40):
        many = many.failed(BEGIN + week * WEEK / 2)
        few = few.failed(BEGIN + week * WEEK / 2)
    assert few.rate == pytest.approx(2 * many.rate, rel=0.1)
    idle = many.exposed(many.seen_at, 0).at(many.seen_at + 3 * WEEK)
    assert idle.base_rate == pytest.approx(many.base_rate, rel=0.05)  # nothing was to be seen


def test_a_censored_count_says_at_least() -> None:
    fresh = Phases.begin(BEGIN, 250)
    told = fresh.counted(20, 250, 1)
    assert told.interval()[0] > 0.04 > fresh.interval()[0]
    assert told.p_chaotic > fresh.p_chaotic
    for wrong in ((0, 250, 1.0), (20, 0, 1.0), (20, 250, 0.0)):
        with pytest.raises(ValueError, match="censored"):
            fresh.counted(*wrong)


def test_a_forecast_relaxes_towards_what_is_usual_and_its_quantile_covers() -> None:
    calm = lived(3, 40)
    week = calm.forecast(1)
    assert week.expected == pytest.approx(calm.rate * 100, rel=0.1)
    assert week.upper > week.expected
    dice, over = random.Random(2), 0
    for _ in range(2_000):
        count, at = 0, dice.expovariate(3)
        while at < 1:
            count, at = count + 1, at + dice.expovariate(3)
        over += count > week.upper
    assert over / 2_000 < 0.01
    assert calm.forecast(0).expected == 0
    assert calm.forecast(1, nodes=50).expected == pytest.approx(week.expected / 2)


def test_siblings_shift_a_new_cohort_and_hardly_an_old_one() -> None:
    bad = [lived(20, 30, seed=seed).base() for seed in (1, 2, 3)]
    prior = pooled(bad)
    assert exp(prior.mean) == pytest.approx(0.15, rel=0.4)
    new = Phases.begin(BEGIN, 100).at(BEGIN + HOUR)
    assert new.informed(prior).base_rate > 3 * new.base_rate
    old = lived(3, 40)
    assert old.informed(prior).base_rate == pytest.approx(old.base_rate, rel=0.15)
    assert pooled([]) == TYPICAL
    assert pooled([Phases.begin(BEGIN, 9).base()]) == TYPICAL  # it has seen nothing


def test_a_prior_of_its_own_changes_nothing() -> None:
    phases = lived(3, 4)
    same = phases.informed(RatePrior(TYPICAL.mean, TYPICAL.sd + 1e-12))
    assert same.rate == pytest.approx(phases.rate, rel=1e-6)
