from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from bench.detectors import ever, fallen, moves
from orchestrator.core.detectors import (
    ALPHA,
    DECLARED,
    DOUBT_MAX,
    LATELY_MAX,
    PRECISION_KEPT,
    PRECISION_MIN,
    UNKNOWN,
    Authority,
    Detector,
    Label,
    _unspent,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OBSERVE, ACT = Authority.OBSERVE, Authority.ACT
TRIALS = 150


def taught(labels: str) -> Detector:
    """Return a detector after labels: R is right, W is wrong."""
    detector = Detector("xid:79")
    for one in labels:
        detector = detector.learn(right=one == "R")
    return detector


def worth(detector: Detector) -> float:
    """Return what is won and what is not placed yet."""
    return detector.wealth + _unspent(detector.labels)


@pytest.mark.parametrize("labels", ["", "R", "W", "RRRRW", "WWWRRRRRRR", "R" * 60, "WR" * 40])
def test_a_bet_on_a_bad_detector_is_fair_at_best(labels: str) -> None:
    """The heart of the promise: nothing that is no better than PRECISION_MIN gains on average."""
    before = taught(labels)
    right, wrong = before.learn(right=True), before.learn(right=False)
    mean = PRECISION_MIN * worth(right) + (1 - PRECISION_MIN) * worth(wrong)
    stake = _unspent(before.labels) - _unspent(before.labels + 1)
    assert mean == pytest.approx(worth(before))
    assert worth(right) > worth(before) > worth(wrong) or stake == 0
    demoted = before.given(OBSERVE, NOW, "")
    assert worth(demoted) <= worth(before), "a second chance costs what was won"


def test_one_that_is_kept_gains_no_doubt_on_average() -> None:
    """A Shiryaev-Roberts sum grows by one a label at most: DOUBT_MAX labels on average."""
    before = taught("RRWRRRR")
    right, wrong = before.learn(right=True).doubted, before.learn(right=False).doubted
    mean = PRECISION_KEPT * right + (1 - PRECISION_KEPT) * wrong
    assert mean == pytest.approx(before.doubted + 1)


def test_a_bad_detector_is_hardly_ever_promoted() -> None:
    assert ever(0.94, 400, ACT, OBSERVE, TRIALS, seed=1) <= 0.02
    assert ever(0.90, 400, ACT, OBSERVE, TRIALS, seed=1) <= 0.01


def test_a_good_detector_is_promoted_soon() -> None:
    assert ever(0.995, 200, ACT, OBSERVE, TRIALS, seed=1) >= 0.85


def test_a_detector_that_turns_bad_is_demoted_soon() -> None:
    found = fallen(0.99, 0.80, TRIALS, seed=1)
    assert found["demoted_within_40"] >= 0.9
    assert found["demoted_before"] <= 0.04


def test_second_chances_break_no_promise() -> None:
    """Explicit and bad: demoted, and then promoted again as rarely as any other."""
    assert ever(0.94, 1_000, ACT, ACT, TRIALS // 3, seed=1) <= 0.04


def test_a_bad_youth_can_be_made_up_for() -> None:
    """Two hundred labels at .8, then good: without a bet kept back it took a thousand labels."""
    lives = [
        [n for n, end in moves(lambda n: 0.8 if n < 200 else 1.0, 600, random.Random(s), OBSERVE)]
        for s in range(20)
    ]
    assert all(life and 200 < life[0] < 450 for life in lives)


def test_three_wrongs_in_a_row_end_any_trust() -> None:
    detector = taught("R" * 30)
    assert detector.due(ACT) is None
    assert taught("R" * 30 + "WW").due(ACT) is None
    end, reason = taught("R" * 30 + "WWW").due(ACT) or (None, "")
    assert end is OBSERVE
    assert "30 of 33 labels right" in reason


def test_a_promotion_says_on_what_it_rests() -> None:
    detector = Detector("net:loss")
    due: tuple[Authority, str] | None = None
    for number in range(120):
        label = Label(f"n{number}", NOW, NOW, right=True, reason="another channel")
        detector = detector.told(label)
        if (due := detector.due(OBSERVE)) is not None:
            break
    assert due is not None
    assert due[0] is ACT
    assert "97 of 97 labels right, 10 of the last 10" in due[1]
    assert "1 of 200 lives" in due[1]
    assert len(detector.lately) == LATELY_MAX
    acting = detector.given(ACT, NOW, due[1])
    assert acting.due(ACT) is None
    assert (acting.authority, acting.since, acting.reason) == (ACT, NOW, due[1])


def test_the_declared_prior_is_what_is_shown_before_the_first_label() -> None:
    assert Detector("xid:79").precision(DECLARED) == pytest.approx(0.99)
    assert Detector("net:loss").precision(UNKNOWN) == 0.5
    assert Detector("net:loss").interval() == (0.0, 1.0)
    low, high = taught("R" * 45 + "W" * 5).interval()
    assert 0.8 < low < 0.9 < high < 0.96
    assert taught("").score == "no label yet"


def test_no_number_grows_without_bounds() -> None:
    detector = taught("R" * 20_000)
    assert detector.wealth == 1 / ALPHA
    assert taught("W" * 2_000).doubted <= 1e6 * DOUBT_MAX
