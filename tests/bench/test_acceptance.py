"""The acceptance bench, cut down: every kind of defect in two cohorts, and healthy cohorts."""

from __future__ import annotations

import json

import pytest

from bench import acceptance


def test_defects_are_found_and_good_nodes_are_not_blamed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert acceptance.main(1, 4) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["kinds"] == 25
    assert told["kinds_found"] >= 24
    assert told["passed_without_coverage"] == 0
