from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import duration, spell


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3s", 3),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172_800),
        ("PT90S", 90),
        ("PT1H30M", 5400),
        ("P1DT1S", 86_401),
        ("0s", 0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", ["", "3", 3, 3.0, None, True, "3 apples", "-3s", "s", "P", "PT", "1w", "9999d", [], {}]
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        duration(value)


@given(st.integers(0, 366 * 86_400_000))
def test_what_is_spelled_is_read_back(milliseconds: int) -> None:
    length = timedelta(milliseconds=milliseconds)
    assert duration(spell(length)) == length
