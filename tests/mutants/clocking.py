"""A pytest plugin: writes how long each test took to the file that `MUTANTS_CLOCK` names."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

_took: defaultdict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add the time of a test's setup, call and teardown."""
    _took[report.nodeid] += report.duration


def pytest_sessionfinish() -> None:
    """Write what was collected."""
    Path(os.environ["MUTANTS_CLOCK"]).write_text(json.dumps(_took))
