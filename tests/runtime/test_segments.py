"""A rank's own time in a step: measured without waiting, told without gaps, read with limits."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.runtime import reports
from orchestrator.runtime.mailbox import Beat, parse
from orchestrator.runtime.paces import STEPS, Paces
from orchestrator.runtime.segments import Segments
from orchestrator.runtime.surroundings import read


def told(paces: Paces, first: int, *own: float | None) -> Paces:
    for step, seconds in enumerate(own, first):
        paces.add(step, seconds)
    return paces


def test_the_newest_steps_are_kept() -> None:
    paces = told(Paces(), 1, *(float(step) for step in range(1, 81)))
    assert paces.step == 80
    assert paces.own == tuple(float(step) for step in range(81 - STEPS, 81))


@pytest.mark.parametrize("bad", [None, -1.0, 1e9, float("nan"), float("inf")])
def test_a_step_without_its_time_begins_anew(bad: float | None) -> None:
    paces = told(Paces(), 1, 0.5, 0.5, bad)
    assert (paces.own, paces.step) == ((), None)
    assert told(paces, 4, 0.25).own == (0.25,)


def test_a_gap_and_a_step_back_begin_anew() -> None:
    assert told(told(Paces(), 1, 0.5, 0.5), 4, 0.25).own == (0.25,)
    assert told(told(Paces(), 5, 0.5, 0.5), 2, 0.25).own == (0.25,)


def test_a_beat_that_is_told_twice_counts_once() -> None:
    assert told(told(Paces(), 1, 0.5, 0.5), 2, 0.5).own == (0.5, 0.5)


def test_where_nobody_keeps_records_nothing_is_measured() -> None:
    segments = Segments(read({}), stopwatch=lambda: 0.0)
    assert segments.end(1) is None
    assert segments.end(2) is None


def test_a_heartbeat_says_its_own_time_and_role() -> None:
    beat = parse(b'{"rank": 1, "phase": "step", "step": 3, "own": 0.25, "role": "last-stage"}')
    assert isinstance(beat, Beat)
    assert (beat.own, beat.role) == (0.25, "last-stage")
    odd = parse(b'{"rank": 1, "phase": "step", "step": 3, "own": "1", "role": ["a"]}')
    assert isinstance(odd, Beat)
    assert odd.own is None


@pytest.mark.parametrize("own", ["1", [True], [-1.0], [1e9], ["1"], [0.1] * (STEPS + 1), {}, 3])
def test_what_no_steps_can_be_is_no_report(own: Any) -> None:
    rank = {"rank": 0, "local_rank": 0, "pid": 1, "state": "running", "own": own}
    with pytest.raises((TypeError, reports.BadReportError)):
        reports._rank(rank)


def test_a_report_of_an_older_agent_has_none() -> None:
    rank = reports._rank({"rank": 0, "local_rank": 0, "pid": 1, "state": "running"})
    assert (rank.own, rank.own_step, rank.role) == ((), None, "")
