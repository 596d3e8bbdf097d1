"""The table of detectors and the checks agree, and so does the controller's policy."""

from __future__ import annotations

import json
from pathlib import Path

from healthchecks import catalog, runner
from healthchecks.findings import Severity
from orchestrator.core.policies import EXPLICIT
from tests.healthchecks.defects import DEFECTS

CASES = Path(__file__).with_name("cases")


def test_every_defect_is_in_the_table_with_its_class() -> None:
    known = catalog.detectors()
    assert {one.detector for one in DEFECTS} - set(known) == set()


def test_every_case_speaks_of_a_detector_that_is_listed() -> None:
    known = catalog.detectors()
    strange = set()
    for path in CASES.glob("*/*.json"):
        check = path.parent.name
        if check in ("disk", "clock", "xid", "sxid"):
            continue
        for said in json.loads(path.read_text())["says"]:
            if said.get("code") and f"{check}:{said['code']}" not in known:
                strange.add(f"{check}:{said['code']}")
    assert strange == set()


def test_what_the_policy_calls_explicit_is_explicit_here() -> None:
    explicit = {name for name, one in catalog.detectors().items() if one.explicit}
    ours = {one for one in EXPLICIT if one.partition(":")[0] in runner.CHECKS}
    assert explicit == ours


def test_what_is_explicit_is_critical_hardware() -> None:
    for name, one in catalog.detectors().items():
        if one.explicit:
            assert one.severity is Severity.CRITICAL, name
            assert one.fault.value == "hardware", name
