from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import PACKAGES
from tests.packaging.environments import ROOT


@pytest.fixture(scope="module")
def held(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(held: set[str]) -> None:
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in held if ".dist-info/" not in name} == there


@pytest.mark.parametrize(
    "name",
    [
        "healthchecks/catalog/xid.json",
        "model/data/embedded/LICENSE-captions.txt",
        "model/data/embedded/LICENSE-sprites.txt",
        "model/data/embedded/captions.tsv.xz",
        "model/data/embedded/sprites.png",
        "orchestrator/cli/root.py",
        "orchestrator/demo/__init__.py",
        "orchestrator/ledger/migrations/script.py.mako",
        "providers/local.py",
        "runbooks/hardware-fault.md",
    ],
)
def test_what_is_no_code_is_there_too(held: set[str], name: str) -> None:
    assert name in held


def test_the_wheel_carries_the_licence_and_the_command(wheel: Path, held: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in held if name.endswith("/entry_points.txt"))
        assert "holdfast = orchestrator.cli:main" in archive.read(entry_points).decode()
