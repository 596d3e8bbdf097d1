"""The base alone, and `[node]` alone, are enough for what the house promises of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.runtime.store import open_store
from tests.packaging.environments import Environment
from tests.runtime.vaults import Story

pytestmark = pytest.mark.system

CONFIG = """
state: state
clusters:
  - {name: ash, provider: local, nodes: 1}
"""
HEAVY = ("torch", "numpy", "sqlalchemy", "alembic", "apscheduler", "paramiko", "slack_sdk")
ABSENT = """
import importlib.util, sys
print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])
"""
LOADED = """
import sys
import orchestrator.runtime.agent, orchestrator.runtime.guard, orchestrator.runtime.launch
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    told = Story(open_store(str(tmp_path / "vault")))
    told.fence()
    told.generation()
    told.commit(10, b"ten")
    return tmp_path / "vault"


def test_the_base_environment_holds_no_extra(base_only: Environment, tmp_path: Path) -> None:
    done = base_only.run("python", "-c", ABSENT, *HEAVY, "pynvml", "pytest", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_base_is_enough_to_ask_for_help(base_only: Environment, tmp_path: Path) -> None:
    done = base_only.run("holdfast", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "checkpoint" in done.stdout


def test_the_base_is_enough_to_check_a_configuration(
    base_only: Environment, tmp_path: Path
) -> None:
    (tmp_path / "holdfast.yaml").write_text(CONFIG)
    done = base_only.run("holdfast", "config", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_base_is_enough_to_read_runbooks(base_only: Environment, tmp_path: Path) -> None:
    done = base_only.run("holdfast", "runbook", "show", "hardware-fault", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_base_is_enough_to_verify_a_checkpoint(
    base_only: Environment, tmp_path: Path, vault: Path
) -> None:
    done = base_only.run("holdfast", "checkpoint", "verify", str(vault), "-o", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["state"] for row in json.loads(done.stdout)] == ["ok"]


@pytest.mark.parametrize(
    ("command", "extra"),
    [(("node", "list"), "controller"), (("checkpoint", "digest", "vault"), "train")],
)
def test_a_command_that_needs_an_extra_names_it(
    base_only: Environment, tmp_path: Path, vault: Path, command: tuple[str, ...], extra: str
) -> None:
    (tmp_path / "holdfast.yaml").write_text(CONFIG)
    done = base_only.run("holdfast", *command, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"holdfast[{extra}]" in done.stderr


@pytest.mark.parametrize("which", ["base_only", "node_only"])
def test_healthchecks_need_no_more_than_they_find(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment: Environment = request.getfixturevalue(which)
    done = environment.run("python", "-m", "healthchecks", "-o", "json", cwd=tmp_path)
    assert done.returncode in (0, 1, 2, 3), done.stderr  # of this machine's own health
    assert "Traceback" not in done.stderr
    *findings, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"disk", "clock"} <= {finding["check"] for finding in findings}
    assert end["coverage"]["complete"] is True


def test_what_an_agent_loads_is_the_standard_library(
    node_only: Environment, tmp_path: Path
) -> None:
    names = (*HEAVY, "pydantic", "click", "rich", "yaml")
    done = node_only.run("python", "-c", LOADED, *names, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    there = node_only.run("python", "-c", ABSENT, *HEAVY, cwd=tmp_path)
    assert there.stdout.strip() == "[]"
    assert node_only.run("py-spy", "--version", cwd=tmp_path).returncode == 0
