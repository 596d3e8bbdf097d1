"""Training in closed form is what it would be second by second."""

from __future__ import annotations

import random

import pytest

from orchestrator.simulation.training import Saved, Training


def by_the_tick(
    interval: float, stall: float, lag: float, until: float, tick: float = 0.25
) -> tuple[float, list[Saved]]:
    """Play training tick by tick: the work done, and what is durable by then."""
    work, phase, saved = 0.0, 0.0, []
    for number in range(round(until / tick)):
        if phase < interval:
            work += tick
        phase += tick
        if phase == interval:
            saved.append(Saved(work, (number + 1) * tick + stall + lag))
        if phase >= interval + stall:
            phase = 0.0
    return work, [one for one in saved if one.at <= until]


@pytest.mark.parametrize("seed", range(40))
def test_closed_form_equals_playing_it(seed: int) -> None:
    dice = random.Random(seed)
    interval, stall, lag = dice.choice((5.0, 8.0)), dice.choice((0.25, 1.0)), dice.choice((0, 3.0))
    until = dice.randrange(1, 400) / 4
    clock = Training(interval, stall, lag)
    clock.start(0.0, 0.0)
    work, saved = by_the_tick(interval, stall, lag, until)
    assert clock.at(until) == pytest.approx(work)
    found = clock.stop(until)
    assert [one.work for one in found] == pytest.approx([one.work for one in saved[-3:]])
    assert [one.at for one in found] == pytest.approx([one.at for one in saved[-3:]])
    assert clock.trained + clock.stalled == pytest.approx(until)


def test_what_was_on_its_way_is_lost_with_the_ranks_but_not_by_a_new_interval() -> None:
    clock = Training(interval=10.0, stall=0.0, lag=5.0)
    clock.start(0.0, 100.0)
    assert clock.settle(12.0) == []  # begun at 10, durable at 15
    clock.interval = 20.0
    assert clock.settle(16.0) == [Saved(110.0, 15.0)]
    assert clock.stop(33.0) == []  # begun in neither cycle long enough
    assert clock.at(40.0) == pytest.approx(133.0)


def test_a_slow_node_slows_the_work_and_not_the_time() -> None:
    clock = Training(interval=100.0, stall=0.0, lag=0.0, speed=0.5)
    clock.start(0.0, 0.0)
    clock.stop(60.0)
    assert (clock.work, clock.trained, clock.slowed) == (30.0, 60.0, 30.0)


def test_without_a_register_nothing_is_saved_and_nothing_stalls() -> None:
    clock = Training(interval=10.0, stall=2.0, lag=0.0, committing=False)
    clock.start(0.0, 0.0)
    assert clock.stop(100.0) == []
    assert clock.work == 100.0
