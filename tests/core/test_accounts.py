from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.accounts import (
    ANCHORS_MAX,
    Account,
    Closed,
    Degraded,
    Done,
    Fact,
    Failed,
    Finished,
    Formed,
    Held,
    Opened,
    Progressed,
    Resumed,
    Stalled,
    Submitted,
    us,
)
from orchestrator.core.timeline import PATIENCE, Book, Cause, Timeline
from tests.core.truths import BEGIN, SECOND, Truth, moment

C = Cause


def at(seconds: float) -> datetime:
    return moment(BEGIN + round(seconds * SECOND))


def booked(facts: list[Fact], until: float) -> Book:
    return Timeline(Account().take_all(facts), at(until)).all()


def minutes(book: Book, cause: Cause, gpus: int = 8) -> float:
    return book.gpu_us[cause] / gpus / SECOND / 60


def held_us(facts: list[Fact], until: int) -> int:
    """Integrate what was held, the simple way."""
    levels = sorted((us(one.at), one.gpus) for one in facts if isinstance(one, Held))
    edges = [*levels, (until, 0)]
    return sum(gpus * (after - start) for (start, gpus), (after, _) in pairwise(edges))


def off(book: Book, truth: Truth) -> dict[Cause, float]:
    """Return by how much each cause is off, as a share of the total."""
    total = sum(truth.amounts.values())
    return {cause: abs(book.gpu_us[cause] - truth.amounts[cause]) / total for cause in Cause}


#: One node: 10 min of steps of a minute, a checkpoint of step 6, a failure at 10:30, and again.
STORY: list[Fact] = [
    Submitted(at(-300)),
    Opened(at(0), 1),
    Held(at(0), 8, 0, 2.0),
    Formed(at(60), 1, 1, 8, 0),
    Resumed(at(120), 1, 1, 0),
    Progressed(at(420), 1, 1, 5),
    Progressed(at(720), 1, 1, 10),
    Failed(at(750), 1, 1, at(780)),
    Formed(at(840), 1, 2, 8, 6),
    Resumed(at(900), 1, 2, 6),
    Progressed(at(1_500), 1, 2, 16),
    Done(at(1_500), 1, 2),
    Held(at(1_560), 0),
    Closed(at(1_560), 1),
    Finished(at(1_600)),
]


def test_every_second_of_a_small_story_has_its_cause() -> None:
    book = booked(STORY, 1_600)
    assert minutes(book, C.PRODUCTIVE) == 6 + 10
    assert minutes(book, C.LOST_WORK) == 4.5
    assert minutes(book, C.DETECT) == 0.5
    assert minutes(book, C.RESTART) == 2 + 2
    assert minutes(book, C.IDLE) == 1
    assert book.paid_us == 8 * 1_560 * SECOND == sum(book.gpu_us.values())
    assert book.dollars[C.PRODUCTIVE] == pytest.approx(8 * 16 / 60 * 2.0)
    assert not any(book.guessed_us.values())


def test_ettr_counts_waiting_for_nodes() -> None:
    book = booked(STORY, 1_600)
    assert book.gpu_us[C.OUTAGE] == 0, "nothing was held while it waited"
    assert book.wall_us[C.OUTAGE] == (300 + 40) * SECOND
    assert book.ettr == pytest.approx(960 / (1_900 - 60))


def test_a_window_has_its_own_book() -> None:
    timeline = Timeline(Account().take_all(STORY), at(1_600))
    book = timeline.book(at(720), at(780))
    assert (book.gpu_us[C.LOST_WORK], book.gpu_us[C.DETECT]) == (240 * SECOND, 240 * SECOND)
    assert sum(book.gpu_us.values()) == book.paid_us == 480 * SECOND
    assert timeline.book(at(2_000), at(3_000)).paid_us == 0


def test_stalls_and_slowness_are_told_from_steps() -> None:
    facts: list[Fact] = [
        Opened(at(0), 1),
        Held(at(0), 10),
        Formed(at(0), 1, 1, 10, 0),
        Resumed(at(0), 1, 1, 0),
        Stalled(at(50), 1, 1, timedelta(seconds=10)),
        Progressed(at(100), 1, 1, 10),
        Degraded(at(100), 1, 1, 0.75),
        Progressed(at(200), 1, 1, 18, timedelta(seconds=20)),
    ]
    book = booked(facts, 200)
    assert book.gpu_us[C.CHECKPOINT_STALL] == 10 * (10 + 20) * SECOND
    assert book.gpu_us[C.DEGRADED] == 10 * 20 * SECOND
    assert book.gpu_us[C.PRODUCTIVE] == 10 * 150 * SECOND
    assert book.unpriced_us == book.paid_us


def test_a_gang_that_shows_no_progress_is_not_called_productive() -> None:
    facts = [*STORY[:6]]
    book = booked(facts, 420 + 3_600)
    assert book.gpu_us[C.PRODUCTIVE] == 8 * (300 * SECOND + PATIENCE)
    assert book.gpu_us[C.UNATTRIBUTED] == 8 * (3_600 * SECOND - PATIENCE)


def test_work_is_lost_through_several_generations() -> None:
    """The third generation steps down below where the second began."""
    third: list[Fact] = [Formed(at(2_000), 1, 3, 8, 2), Resumed(at(2_060), 1, 3, 2)]
    story = [one for one in STORY if not isinstance(one, Done | Closed | Finished)]
    failed = Failed(at(1_500), 1, 2, at(1_520))
    book = booked([*story[:-1], failed, *third], 2_060)
    assert minutes(book, C.PRODUCTIVE) == 2
    assert minutes(book, C.LOST_WORK) == 8.5 + 10


def test_who_stands_by_is_spare_also_while_the_gang_restarts() -> None:
    facts: list[Fact] = [
        Held(at(0), 24, 8, 1.0),
        *(one for one in STORY if not isinstance(one, Held)),
    ]
    book = booked([*facts, Held(at(1_560), 0)], 1_600)
    assert book.gpu_us[C.SPARE] == 8 * 1_500 * SECOND, "until all is done, when all of it idles"
    assert book.gpu_us[C.RESTART] == 16 * 240 * SECOND
    assert book.gpu_us[C.IDLE] == (8 * (1_500 - 240) + 24 * 60) * SECOND


@pytest.mark.parametrize("seed", range(6))
def test_the_account_finds_the_truth_again_whatever_the_order(seed: int) -> None:
    dice = random.Random(seed)
    truth = Truth(dice).play()
    until = moment(truth.now)
    facts = truth.facts
    mixed = [*facts, *dice.sample(facts, len(facts) // 2)]
    dice.shuffle(mixed)
    in_order = Timeline(Account().take_all(facts), until).all()
    book = Timeline(Account().take_all(mixed), until).all()
    assert book == in_order, f"seed {seed}"
    assert sum(book.gpu_us.values()) == book.paid_us == sum(truth.amounts.values())
    assert book.paid_us == held_us(facts, truth.now)
    assert max(off(book, truth).values()) < 0.01, (seed, off(book, truth))
    assert not any(book.guessed_us.values())


@pytest.mark.parametrize("seed", range(12))
def test_what_lost_facts_leave_open_is_guessed_well_and_marked(seed: int) -> None:
    dice = random.Random(seed)
    truth = Truth(dice).play()
    left = [fact for fact in truth.facts if dice.random() >= 0.01]
    assert len(left) < len(truth.facts)
    book = Timeline(Account().take_all(left), moment(truth.now)).all()
    assert sum(book.gpu_us.values()) == book.paid_us
    assert book.gpu_us[C.UNATTRIBUTED] <= 0.005 * book.paid_us, f"seed {seed}"
    assert max(off(book, truth).values()) < 0.02, (seed, off(book, truth))


@pytest.mark.parametrize("kind", [Failed, Resumed, Formed, Opened, Closed])
def test_a_lost_kind_of_fact_is_told_by_a_mark(kind: type) -> None:
    truth = Truth(random.Random(3)).play()
    left = [fact for fact in truth.facts if not isinstance(fact, kind)]
    book = Timeline(Account().take_all(left), moment(truth.now)).all()
    assert sum(book.gpu_us.values()) == book.paid_us
    if kind in (Failed, Resumed):
        assert sum(book.guessed_us.values()) > 0
    assert max(off(book, truth).values()) < 0.05, off(book, truth)


def facts_of_any_kind() -> st.SearchStrategy[list[Fact]]:
    """Facts that need not fit together at all."""
    moments = st.integers(0, 10_000).map(lambda n: at(n * 0.7))
    ids = st.integers(1, 3)
    steps = st.integers(0, 50)
    one = st.one_of(
        st.builds(Submitted, moments),
        st.builds(Finished, moments),
        st.builds(Opened, moments, ids),
        st.builds(
            Held, moments, st.integers(0, 99), st.integers(0, 99), st.sampled_from([None, 2.1])
        ),
        st.builds(Formed, moments, ids, ids, st.integers(0, 99), st.none() | steps),
        st.builds(Resumed, moments, ids, ids, steps),
        st.builds(Progressed, moments, ids, ids, steps, moments.map(lambda m: m - at(0))),
        st.builds(Failed, moments, ids, ids, moments),
        st.builds(Done, moments, ids, ids),
        st.builds(Stalled, moments, ids, ids, moments.map(lambda m: m - at(0))),
    )
    return st.lists(one, max_size=25)


@settings(max_examples=300, deadline=None)
@given(facts_of_any_kind(), st.randoms(use_true_random=False))
def test_every_microsecond_is_booked_once_whatever_is_told(
    facts: list[Fact], dice: random.Random
) -> None:
    """Also nonsense sums up, and its order does not matter."""
    timeline = Timeline(Account().take_all(facts), at(8_000))
    mixed = [*facts, *facts]
    dice.shuffle(mixed)
    again = Timeline(Account().take_all(mixed), at(8_000))
    book = timeline.all()
    assert again.all() == book
    assert sum(book.gpu_us.values()) == book.paid_us
    assert all(amount >= 0 for amount in (*book.gpu_us.values(), *book.wall_us.values()))
    assert all(one.end == other.start for one, other in pairwise(timeline.spans))
    cuts = [at(0), at(1_234.567), at(5_000), at(8_000)]
    pieces = [timeline.book(start, end) for start, end in pairwise(cuts)]
    whole = timeline.book(at(0), at(8_000))
    assert sum(piece.paid_us for piece in pieces) == whole.paid_us
    assert all(guess <= book.gpu_us[cause] for cause, guess in book.guessed_us.items())


def test_a_year_of_steps_is_remembered_in_a_few_numbers() -> None:
    account = Account().take_all(STORY[:5])
    for step in range(1, 20_001):
        account.take(Progressed(at(120 + 1_500 * step), 1, 1, step))
    known = account.generations[1, 1]
    assert len(known.anchors) <= ANCHORS_MAX
    book = Timeline(account, at(120 + 1_500 * 20_000)).all()
    assert book.gpu_us[C.PRODUCTIVE] == 8 * 1_500 * 20_000 * SECOND


def test_ettr_of_each_hour() -> None:
    timeline = Timeline(Account().take_all(STORY), at(1_600))
    hours = timeline.sliding(window=600 * SECOND)
    assert [end for end, _ in hours] == [at(300), at(900), at(1_500)]
    assert [ettr for _, ettr in hours] == pytest.approx([180 / 600, 180 / 600, 1.0])
