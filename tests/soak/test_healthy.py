"""No healthy generation is ended: pauses, long checkpoints, a slow loader, a busy machine.

Twenty runs of 500 steps (`make soak`); `tests/system` has two short ones with a lower limit.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.fleet import LocalFleet
from tests.system.healthy import busy, run_healthy_job

pytestmark = [pytest.mark.soak, pytest.mark.system]


@pytest.mark.parametrize("seed", range(20))
def test_five_hundred_steps_with_pauses_are_left_alone(
    make_fleet: Callable[..., LocalFleet], seed: int
) -> None:
    with busy(10):
        run_healthy_job(make_fleet(clusters={"ash": 2}), seed=seed, steps=500, floor=10.0)
