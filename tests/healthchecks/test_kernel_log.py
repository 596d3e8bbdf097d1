"""Stamps of kernel-log lines."""

from __future__ import annotations

import pytest

from healthchecks import kernel_log


@pytest.mark.parametrize(
    ("head", "at"),
    [
        ("kern  :warn  : 2025-01-21T04:41:44,283302+00:00 ", 1737434504.0),
        ("kern  :warn  : 2025-01-21T047:41:4,283302+00:00 ", None),  # found by fuzzing
        ("[Sun Feb 23 99:24:18 2025] ", None),
        ("6,1234,5000000,-;", 105.0),
        (f"6,1234,{'9' * 400},-;", None),
        ("Aug 29 16:20:11 host kernel: ", None),
    ],
)
def test_a_stamp_is_a_moment_or_nothing(head: str, at: float | None) -> None:
    line = kernel_log.parse(f"{head}watchdog: BUG: soft lockup")
    assert line is not None
    assert kernel_log.said_at(line, 100.0) == at
