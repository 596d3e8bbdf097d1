"""What the same failures cost without Holdfast: thrown, and by formula 5."""

from __future__ import annotations

import math

import pytest

from orchestrator.simulation.baseline import Manual, efficiency, mean_efficiency

HOUR = 3_600.0


def formula_5(mtbf: float, team: Manual) -> float:
    """Exact efficiency of the exponential model, failures during restart too."""
    period = (team.interval + team.stall) / mtbf
    return team.interval / (mtbf * math.exp(team.restart / mtbf) * (math.exp(period) - 1.0))


@pytest.mark.parametrize(("hours", "known"), [(5.6, 0.8204), (56.0, 0.966), (8.4, None)])
def test_thrown_failures_come_to_formula_5(hours: float, known: float | None) -> None:
    exact = formula_5(hours * HOUR, Manual())
    thrown = mean_efficiency(1.0 / (hours * HOUR), 364 * 86_400.0, range(20))
    assert thrown == pytest.approx(exact, abs=0.005)
    if known is not None:
        assert exact == pytest.approx(known, abs=0.001)


def test_a_failure_costs_the_restart_and_what_was_not_saved() -> None:
    team = Manual(restart=100.0, interval=50.0, stall=10.0)
    assert efficiency([], 600.0, team) == pytest.approx(500.0 / 600.0)
    assert efficiency([130.0], 600.0, team) == pytest.approx((100.0 + 310.0) / 600.0)
    assert efficiency([130.0, 150.0], 600.0, team) == pytest.approx((100.0 + 300.0) / 600.0)
