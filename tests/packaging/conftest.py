from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.environments import ROOT, Environment, make, make_bare

FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
PACKAGES = ("orchestrator", "healthchecks", "model", "providers", "runbooks")
BESIDE = ("tests", "tools", "bench")  #: in the repository, never in the wheel
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tree, with what is installed: nothing is downloaded."""
    pytest.importorskip("setuptools", minversion="77", reason="the build needs setuptools 77")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, *BESIDE):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def base_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make(tmp_path_factory.mktemp("base"), wheel)


@pytest.fixture(scope="session")
def node_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make(tmp_path_factory.mktemp("node"), wheel, "node")


@pytest.fixture(scope="session")
def python310() -> str:
    """Find a Python 3.10 that makes environments: on PATH, or beside this one (pyenv, uv)."""
    beside = sorted(Path(sys.base_prefix).parent.glob("*3.10*/bin/python3.10"))
    for found in (shutil.which("python3.10"), *map(str, beside)):
        if found and _runs(found):
            return found
    pytest.skip("no python3.10 found: on PATH, or beside the Python that runs the tests")


def _runs(python: str) -> bool:
    argv = [python, "-c", "import sys, venv; print(sys.version_info[:2])"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip() == "(3, 10)"


@pytest.fixture(scope="session")
def bare_310(wheel: Path, python310: str, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_bare(tmp_path_factory.mktemp("bare"), wheel, python310)
