from __future__ import annotations

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.packaging.environments import ROOT, closure, declared


def extras_of_set_up() -> list[str]:
    line = re.search(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    return line[1].split(",")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_distribution_that_set_up_installs_is_pinned() -> None:
    try:
        needed = closure(declared(*extras_of_set_up()))
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"not the environment of make setup: {error} is not installed")
    pinned = pins()
    of_torch = (
        "nvidia-",
        "cuda-",
        "triton",
    )  # builds for GPUs bring these, in torch's own versions
    assert not {name for name in needed.keys() - pinned if not name.startswith(of_torch)}
    assert {name: Version(needed[name].version).public for name in pinned.keys() & needed} == {
        name: version for name, version in pinned.items() if name in needed
    }


def test_every_pin_satisfies_setup_cfg() -> None:
    pinned = pins()
    for need in declared(*extras_of_set_up()):
        assert need.specifier.contains(pinned[canonicalize_name(need.name)]), need


def test_the_build_uses_the_pinned_setuptools() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.search(r'requires = \["(setuptools[^"]*)"\]', text)
    assert wanted is not None
    assert Requirement(wanted[1]).specifier.contains(pins()["setuptools"])
