"""`holdfast report goodput` over a ledger that tells a small story."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Holdfast, Story


def test_the_causes_sum_up_to_what_was_paid(holdfast: Holdfast, story: Story) -> None:
    said = json.loads(holdfast("report", "goodput", "-o", "json").stdout)
    assert said["jobs"] == ["train"]
    rows = {row["cause"]: row for row in said["by_cause"]}
    assert list(rows)[:2] == ["productive", "lost work"]
    assert said["gpu_hours"] > 0
    assert sum(row["gpu_hours"] for row in rows.values()) == pytest.approx(
        said["gpu_hours"], abs=0.001
    )
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1.0, abs=1e-4)
    assert said["unpriced_gpu_hours"] == said["gpu_hours"]  # cluster a has no price
    assert any("no accelerators are told" in one for one in said["assumed"])


def test_people_get_a_table_and_what_was_assumed(holdfast: Holdfast, story: Story) -> None:
    shown = holdfast("report", "goodput", "train", "--by", "job")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0].split()[:2] == ["JOB", "GPU-HOURS"]
    assert "goodput 0.0 %" in shown.stderr
    assert "set price_per_hour" in shown.stderr
    assert "assumed: train:" in shown.stderr


def test_a_window_that_is_asked_for_is_all_that_is_booked(holdfast: Holdfast, story: Story) -> None:
    whole = json.loads(holdfast("report", "goodput", "-o", "json").stdout)
    last = json.loads(holdfast("report", "goodput", "--since", "2m", "-o", "json").stdout)
    assert 0 < last["gpu_hours"] < whole["gpu_hours"]
    assert last["gpu_hours"] == pytest.approx(2 * 2 / 60, abs=1e-3)  # two nodes, two minutes
    rows = json.loads(holdfast("report", "goodput", "--window", "5m", "-o", "json").stdout)
    assert [row["ettr"] for row in rows] == [0.0] * len(rows)
    assert len(rows) >= 1


def test_bad_words_are_refused(holdfast: Holdfast, story: Story) -> None:
    assert holdfast("report", "goodput", "trian").exit_code == 2
    assert "train" in holdfast("report", "goodput", "trian").stderr
    assert holdfast("report", "goodput", "--since", "soon").exit_code == 2
    assert holdfast("report", "goodput", "--window", "1s").exit_code == 2
