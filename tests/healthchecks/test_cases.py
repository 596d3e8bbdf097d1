"""Every judge against its cases: what was seen, and what it says. An incident becomes a case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from healthchecks import clock, disk, nvml, runner, xid
from healthchecks.api import Settings
from healthchecks.findings import Finding, encode

CASES = Path(__file__).with_name("cases")


def cases(check: str) -> list[Any]:
    paths = sorted((CASES / check).glob("*.json"))
    assert paths, check
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in paths]


def compare(said: list[Finding], case: dict[str, Any]) -> None:
    """Compare every field that the case names, in order."""
    encoded = [encode(one) for one in said]
    named = [
        {key: body[key] for key in wanted}
        for body, wanted in zip(encoded, case["says"], strict=True)
    ]
    assert named == case["says"], case["about"]


def gpus_on_bus(root: Path, addresses: list[str]) -> None:
    for address in addresses:
        device = root / "sys/bus/pci/devices" / f"{address}.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030200\n")


@pytest.mark.parametrize("case", cases("xid"))
def test_xid_reads_a_kernel_log(case: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "kernel.log"
    log.write_text("".join(f"{line}\n" for line in case["seen"]["log"]))
    gpus_on_bus(tmp_path, case["seen"]["gpus"])
    settings = Settings(
        root=str(tmp_path), kernel_log=str(log), since=case.get("settings", {}).get("since", 0.0)
    )
    facts = json.loads(json.dumps(xid.probe(settings)))
    compare(xid.judge(facts, settings), case)


@pytest.mark.parametrize("case", cases("nvml"))
def test_nvml_compares_what_answers_with_what_should(case: dict[str, Any]) -> None:
    settings = Settings(**case.get("settings", {}))
    compare(nvml.judge(case["seen"], settings), case)


@pytest.mark.parametrize("case", cases("disk"))
def test_disk_judges_by_share_and_by_size(case: dict[str, Any]) -> None:
    compare(disk.judge(case["seen"], Settings()), case)


@pytest.mark.parametrize("case", cases("clock"))
def test_clock_says_whether_it_can_be_believed(case: dict[str, Any]) -> None:
    compare(clock.judge(case["seen"], Settings()), case)


HOST = ("kernel", "sxid", "mounts", "limits", "edac", "stuck", "smart", "dns", "infiniband")


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, *one.values, id=f"{name}-{one.id}")
        for name in HOST
        for one in cases(name)
    ],
)
def test_a_host_check_says_what_its_case_says(name: str, case: dict[str, Any]) -> None:
    (check,) = runner.load([name])
    settings = Settings(**case.get("settings", {}))
    compare(list(check.judge(case["seen"], settings)), case)
