"""A small version of `python -m bench.phases`: the engine is not far from peers that know all."""

from __future__ import annotations

import itertools
import random

import pytest

from bench import phases as bench
from orchestrator.core.phases import Phases

SEED = 7  #: of all draws here; a failing figure can be drawn again


def test_a_change_is_found_nearly_as_soon_as_by_a_peer_that_knows_both_rates() -> None:
    """A goes from 3 to 20 failures a week. Full runs: about the same delay as the CUSUM."""
    quiet, learnt, false = bench.quiet_years(3.0, 250.0, 8, SEED)
    assert false <= 1, f"seed {SEED}"
    ours = sorted(
        bench.delay(one, 3.0, 20 / 3, random.Random(f"{SEED} {run}"))
        for run, one in enumerate(learnt)
    )
    assert sum(ours[3:5]) / 2 <= 4, f"seed {SEED}: {ours}"
    limit = bench.tuned(3.0, 20 / 3, max(false, 0.25), quiet)
    assert bench.crossings(3.0, 20 / 3, limit, quiet) <= max(false, 0.25)


def test_the_peer_is_a_cusum() -> None:
    peer = bench.Cusum(3.0, 20.0, 5.5)
    alarms = [peer.failed(week) for week in (0.1, 0.12, 0.14, 0.16, 0.18)]
    assert alarms == [False, False, False, True, True]
    assert not peer.failed(4.0)  # it fell back to nought meanwhile


def test_the_learned_interval_loses_hardly_more_than_the_oracles() -> None:
    total = bench.year(12.5, [(0.0, 10.0, 3.0)], random.Random(SEED))
    for cost, ways in total.items():
        assert ways["oracle"] <= ways["learned"] <= 1.25 * ways["oracle"], (SEED, cost)
        assert ways["oracle"] <= min(ways[str(minutes)] for minutes in bench.FIXED)


def test_eras_follow_each_other_without_a_gap() -> None:
    spans = list(bench.eras(random.Random(SEED), 3.0, 52.0))
    assert spans[0][0] == 0
    assert spans[-1][1] == 52.0
    assert all(one[1] == other[0] for one, other in itertools.pairwise(spans))
    rates = [one[2] for one in spans]
    assert all(one != other for one, other in itertools.pairwise(rates))


def test_steps_cover_the_time_between_two_failures_once() -> None:
    phases = Phases.begin(bench.BEGIN, 10.0)
    spans = list(bench.steps(phases, 0.0, 2.0))
    assert spans[0][0] == 0
    assert spans[-1][1] == 2.0
    assert sum(stop - start for start, stop in spans) == pytest.approx(2.0)
    assert len(spans) < 20
