"""A stall is suspected early and acted upon late: a healthy job is left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.fleet import LocalFleet
from tests.system.healthy import run_healthy_job

pytestmark = pytest.mark.system


def test_a_hundred_steps_with_pauses_are_left_alone(make_fleet: Callable[..., LocalFleet]) -> None:
    run_healthy_job(make_fleet(clusters={"ash": 2}), seed=1, steps=100, floor=3.0)
