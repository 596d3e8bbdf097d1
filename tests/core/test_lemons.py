"""Lemons: more failures than the cohort explains, and bursts that say nothing of single nodes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.cohorts import Failure
from orchestrator.core.lemons import frailty, single
from orchestrator.core.nodes import NodeName

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def failures(*names: str, apart: timedelta = timedelta(hours=5)) -> list[Failure]:
    return [Failure(BEGIN + n * apart, NodeName(name)) for n, name in enumerate(names)]


def test_a_node_that_fails_again_and_again_in_a_calm_cohort_is_a_lemon() -> None:
    others = [f"n{i}" for i in range(30)]
    seen = failures(*others, *["bad"] * 5)
    bad = frailty(NodeName("bad"), seen, 250)
    assert bad.sour
    assert bad.frailty > 3
    assert bad.reason == "failed 5 times in 13 weeks where its cohort explains 0.12"
    assert not frailty(NodeName("n1"), seen, 250).sour
    assert frailty(NodeName("n1"), seen, 250).score < 0.3


def test_the_same_count_in_a_chaotic_cohort_is_ordinary() -> None:
    names = [f"n{i % 12}" for i in range(60)]
    assert not frailty(NodeName("n3"), failures(*names), 12).sour


def test_bursts_are_left_out() -> None:
    burst = [Failure(BEGIN + timedelta(minutes=n), NodeName(f"n{n}")) for n in range(8)]
    pair = [Failure(BEGIN + 9 * HOUR, NodeName("n1")), Failure(BEGIN + 9 * HOUR, NodeName("n2"))]
    assert single([*burst, *pair]) == pair
    assert single([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_few_of_many_equal_nodes_are_ever_called_lemons(seed: int) -> None:
    dice = random.Random(seed)
    seen = failures(*(f"n{dice.randrange(250)}" for _ in range(39)))
    called = [n for n in range(250) if frailty(NodeName(f"n{n}"), seen, 250).sour]
    assert called == []
