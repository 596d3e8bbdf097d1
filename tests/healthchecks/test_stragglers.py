"""A straggler is slow in most steps, among ranks of its own role; everything else is noise."""

from __future__ import annotations

import random

import pytest

from healthchecks.stragglers import stragglers


def gang(
    ranks: int = 16, steps: int = 60, noise: float = 0.03, seed: int = 1
) -> dict[int, list[float]]:
    dice = random.Random(seed)
    return {one: [dice.gauss(1.0, noise) for _ in range(steps)] for one in range(ranks)}


def slowed(times: list[float], factor: float) -> list[float]:
    return [one * factor for one in times]


@pytest.mark.parametrize("factor", [1.2, 1.5, 3.0])
def test_a_rank_that_is_always_slow_is_named(factor: float) -> None:
    own = gang()
    own[5] = slowed(own[5], factor)
    (one,) = stragglers(own)
    assert one.rank == 5
    assert one.ratio == pytest.approx(factor, rel=0.05)
    assert one.suspected is (factor > 1.3)
    assert one.persistence >= 0.8


@pytest.mark.parametrize("seed", range(40))
def test_nobody_is_named_in_a_healthy_gang(seed: int) -> None:
    assert stragglers(gang(seed=seed, noise=0.05)) == ()


def test_some_slow_steps_are_a_checkpoint_and_no_straggler() -> None:
    own = gang()
    own[0] = [one * (4 if number % 10 == 0 else 1) for number, one in enumerate(own[0])]
    assert stragglers(own) == ()


def test_roles_are_not_compared_with_each_other() -> None:
    own = gang(8)
    for rank in (4, 5, 6, 7):
        own[rank] = slowed(own[rank], 1.6)  # the last stage of a pipeline
    roles = {rank: "last" if rank > 3 else "middle" for rank in own}
    assert stragglers(own, roles) == ()
    own[6] = slowed(own[6], 1.4)
    assert [one.rank for one in stragglers(own, roles)] == [6]


def test_a_slow_node_is_all_its_ranks() -> None:
    own = gang(32)
    for rank in range(8, 16):
        own[rank] = slowed(own[rank], 1.4)
    assert {one.rank for one in stragglers(own)} == set(range(8, 16))


def test_a_silicon_lottery_of_five_percent_is_no_fault() -> None:
    own = gang()
    own[3] = slowed(own[3], 1.06)
    assert stragglers(own) == ()


def test_too_little_says_nothing() -> None:
    own = gang(2)
    own[1] = slowed(own[1], 5)
    assert stragglers(own) == ()
    assert stragglers({rank: [1.0] * 5 for rank in range(8)}) == ()
    assert stragglers({}) == ()
