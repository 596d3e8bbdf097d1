"""Accounts from the ledger of a simulated fleet, beside what truly became of every GPU-second."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from orchestrator.core.nodes import JobName
from orchestrator.core.timeline import Cause
from orchestrator.ledger.api import Event
from tests.simulation.ledgers import Told, fleet, late_and_twice, off, play

WORLDS = [("brief", 1, 3.0), ("full", 2, 1.0)]
JOBS = [JobName("long"), JobName("short")]
LOST = 0.01


@cache
def told(gangs: str, seed: int, days: float, *, late: bool) -> tuple[Told, ...]:
    prepare = (lambda sim: late_and_twice(sim, seed)) if late else None
    sim = play(fleet(days, gangs), seed, prepare)
    return tuple(Told(sim, job) for job in JOBS)


@pytest.mark.parametrize(("gangs", "seed", "days"), WORLDS)
@pytest.mark.parametrize("late", [False, True])
def test_every_gpu_second_is_booked_to_what_it_truly_went_to(
    gangs: str, seed: int, days: float, late: bool
) -> None:
    for one in told(gangs, seed, days, late=late):
        book, truth = one.book(one.events()), one.truth
        assert book.paid_us == truth.paid_us > 0
        assert sum(book.gpu_us.values()) == book.paid_us
        assert max(off(book, truth).values()) < 0.001, off(book, truth)
        assert book.gpu_us[Cause.UNATTRIBUTED] == 0


@pytest.mark.parametrize(("gangs", "seed", "days"), WORLDS)
def test_what_is_lost_is_guessed_and_marked(gangs: str, seed: int, days: float) -> None:
    guessed = 0
    for one in told(gangs, seed, days, late=False):
        events, truth = one.events(), one.truth
        for trial in range(20):
            dice = Random(f"lost {seed} {trial}")
            book = one.book(event for event in events if dice.random() >= LOST)
            assert sum(book.gpu_us.values()) == book.paid_us
            wrong = off(book, truth)
            assert max(wrong.values()) < 0.02, (trial, wrong)
            assert book.gpu_us[Cause.UNATTRIBUTED] <= 0.005 * book.paid_us, trial
            guessed += sum(book.guessed_us.values())
    assert guessed > 0


def test_the_order_of_events_and_their_number_say_nothing() -> None:
    one = told(*WORLDS[0], late=False)[0]
    events = one.events()
    mixed: list[Event] = [*events, *events]
    Random(5).shuffle(mixed)
    assert one.book(mixed) == one.book(events)


def test_without_any_event_grants_and_states_still_tell_what_was_held() -> None:
    one = told(*WORLDS[0], late=False)[0]
    book, truth = one.book([]), one.truth
    assert sum(book.gpu_us.values()) == book.paid_us
    assert book.gpu_us[Cause.PRODUCTIVE] == 0  # nobody told of a step
    assert 0.5 < book.paid_us / truth.paid_us < 1.5
