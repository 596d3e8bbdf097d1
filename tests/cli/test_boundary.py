from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli.root import COMMANDS, Root, everywhere, main
from orchestrator.errors import HoldfastError, PermanentError, TransientError, UserError
from orchestrator.runtime.vault import VerificationError
from tests.cli.conftest import Holdfast


def run(error: BaseException, *args: str) -> tuple[int, str]:
    group = Root("holdfast")

    @group.command()
    def fail() -> None:
        raise error

    everywhere(group)
    result = CliRunner().invoke(group, ["fail", *args])
    assert result.stdout == ""
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no such node"), 2),
        (PermanentError("refused"), 1),
        (TransientError("busy"), 75),
        (HoldfastError("odd"), 1),
        (VerificationError(7, ("a part is missing",)), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("what?"), 2),
        (RuntimeError("a bug"), 1),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2),
        (ModuleNotFoundError("No module named 'ours'", name="ours"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert run(error)[0] == code


def test_an_error_is_one_line_without_a_traceback() -> None:
    assert run(UserError("no such node"))[1] == "error: no such node\n"


def test_debug_shows_the_traceback() -> None:
    told = run(UserError("no such node"), "--debug")[1]
    assert "Traceback" in told
    assert told.endswith("error: no such node\n")


def test_a_bug_says_what_to_do() -> None:
    told = run(RuntimeError("oops"))[1]
    assert "RuntimeError: oops" in told
    assert "--debug" in told


def test_a_missing_extra_is_named() -> None:
    error = ModuleNotFoundError("No module named 'sqlalchemy.orm'", name="sqlalchemy.orm")
    assert "pip install 'holdfast[controller]'" in run(error)[1]


def test_every_command_of_the_table_is_there_and_explains_itself(holdfast: Holdfast) -> None:
    for name in COMMANDS:
        result = holdfast(name, "--help")
        assert result.exit_code == 0, result.stderr
        assert "Usage: holdfast" in result.stdout


def test_help_lists_the_commands_and_imports_none_of_them() -> None:
    code = (
        "import sys; from orchestrator.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "late = {'torch', 'sqlalchemy', 'pydantic', 'rich', 'yaml', 'alembic'}\n"
        "heavy = late & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert all(name in done.stdout for name in COMMANDS)


def test_an_unknown_command_is_a_usage_error(holdfast: Holdfast) -> None:
    result = holdfast("nod", "list")
    assert result.exit_code == 2
    assert "No such command" in result.stderr


def test_the_version_is_told(holdfast: Holdfast) -> None:
    assert holdfast("--version").stdout.startswith("holdfast ")


@pytest.mark.parametrize("before", [True, False])
def test_config_may_stand_before_or_after_the_command(
    holdfast: Holdfast, home: Path, *, before: bool
) -> None:
    (home / "holdfast.yaml").rename(home / "other.yaml")
    option, command = ["--config", "other.yaml"], ["config", "check"]
    result = holdfast(*(option + command if before else command + option))
    assert result.exit_code == 0, result.stderr
    assert "other.yaml" in result.stdout


def test_the_environment_may_name_the_configuration(
    holdfast: Holdfast, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "holdfast.yaml").rename(home / "other.yaml")
    monkeypatch.setenv("HOLDFAST_CONFIG", "other.yaml")
    assert holdfast("config", "check").exit_code == 0


def test_without_a_configuration_the_way_to_one_is_told(holdfast: Holdfast, home: Path) -> None:
    (home / "holdfast.yaml").unlink()
    result = holdfast("status")
    assert result.exit_code == 2
    assert "holdfast init" in result.stderr


def test_a_mistake_in_the_configuration_exits_with_2_and_its_path(
    holdfast: Holdfast, home: Path
) -> None:
    (home / "holdfast.yaml").write_text("clusters:\n- {name: a, provider: local, nodes: three}\n")
    for command in (("config", "check"), ("status",), ("node", "list")):
        result = holdfast(*command)
        assert result.exit_code == 2
        assert "holdfast.yaml:2: clusters[0].nodes: expected a whole number" in result.stderr


def test_main_is_what_the_script_calls() -> None:
    assert isinstance(main, click.Group)


BASE_ONLY = """
import sys
for extra in ("sqlalchemy", "alembic", "apscheduler", "slack_sdk", "paramiko", "torch", "numpy"):
    sys.modules[extra] = None
from orchestrator.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("--help",), 0),
        (("config", "check"), 0),
        (("config", "schema", "--job"), 0),
        (("runbook", "list"), 0),
        (("checkpoint", "verify", "nowhere"), 2),
        (("node", "list"), 2),
        (("daemon", "run"), 2),
    ],
)
def test_the_base_requirements_are_enough_or_the_missing_extra_is_named(
    home: Path, command: tuple[str, ...], code: int
) -> None:
    argv = [sys.executable, "-c", BASE_ONLY, *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert ("holdfast[controller]" in done.stderr) == (command[0] in ("node", "daemon"))
