"""The command `holdfast`: the table of its commands, and the one boundary of errors.

Commands are imported when they are used: `holdfast --help` is quick and works where only the base
requirements are installed. Every error that reaches the boundary becomes one message on stderr
and an exit code: 0 done, 1 failed, 2 usage, 3 unhealthy (`status --check` only), 75 try later,
130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from orchestrator.cli.output import say
from orchestrator.cli.session import Session
from orchestrator.errors import HoldfastError

INTERRUPTED = 130
FAILED = 1
CODES = frozenset({1, 2, 75})  #: of errors, as people and scripts know them

#: Third-party modules that only some commands need, and the extra that brings them.
EXTRAS: Mapping[str, str] = {
    "alembic": "controller",
    "apscheduler": "controller",
    "paramiko": "controller",
    "slack_sdk": "controller",
    "sqlalchemy": "controller",
    "matplotlib": "demo",
    "numpy": "train",
    "PIL": "train",
    "tiktoken": "train",
    "torch": "train",
    "psycopg": "postgres",
    "boto3": "s3",
    "botocore": "s3",
    "pynvml": "node",
}


@dataclass(frozen=True, slots=True)
class Later:
    """A command that is imported when it is used."""

    where: str  #: "module:attribute"
    help: str


COMMANDS: Mapping[str, Later] = {
    "demo": Later("orchestrator.cli.demo:demo", "See training survive seven faults, right here."),
    "init": Later("orchestrator.cli.init:init", "Write a holdfast.yaml by asking a few questions."),
    "simulate": Later(
        "orchestrator.cli.simulate:simulate", "Run the deciding part over a simulated fleet."
    ),
    "status": Later("orchestrator.cli.fleet:status", "Show the fleet on one page."),
    "plan": Later("orchestrator.cli.fleet:plan", "Say what would be decided now; change nothing."),
    "why": Later("orchestrator.cli.why:why", "Tell the story of a node, a job or an attempt."),
    "cluster": Later("orchestrator.cli.clusters:cluster", "Clusters: list, show, up, doctor."),
    "node": Later("orchestrator.cli.nodes:node", "Nodes: list, show, cordon, drain, quarantine."),
    "accept": Later("orchestrator.cli.accept:accept", "Burn in delivered nodes and judge them."),
    "job": Later("orchestrator.cli.jobs:job", "Jobs: submit, list, show, stop, logs."),
    "attempt": Later("orchestrator.cli.attempts:attempt", "Attempts: list."),
    "checkpoint": Later(
        "orchestrator.cli.checkpoints:checkpoint", "Checkpoints: list, verify, digest."
    ),
    "detector": Later(
        "orchestrator.cli.detectors:detector", "Detectors: list, show; who may evict alone."
    ),
    "incident": Later("orchestrator.cli.incidents:incident", "Incidents: list, show."),
    "report": Later("orchestrator.cli.report:report", "Reports: goodput, where the money went."),
    "diagnose": Later("orchestrator.cli.diagnose:diagnose", "Say what a failure's text tells."),
    "runbook": Later("orchestrator.cli.runbooks:runbook", "Runbooks: list, show."),
    "chaos": Later("orchestrator.cli.chaos:chaos", "Break something on purpose."),
    "daemon": Later("orchestrator.cli.daemon:daemon", "The controller: run."),
    "db": Later("orchestrator.cli.db:db", "The ledger's database: upgrade."),
    "config": Later("orchestrator.cli.config:config", "Configuration: check, schema."),
}


def _set_config(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Session).config = value


def _config_option() -> click.Option:
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        callback=_set_config,
        expose_value=False,
        help="Configuration to read.  [default: $HOLDFAST_CONFIG or ./holdfast.yaml]",
    )


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."
    )


def everywhere(command: click.Command) -> click.Command:
    """Let a command, and those below it, take `--config` and `--debug` at its own place too."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            everywhere(below)
    names = {parameter.name for parameter in command.params}
    for option in (_config_option(), _debug_option()):
        if option.name not in names:
            command.params.append(option)
    return command


class Root(click.Group):
    """The group `holdfast`: imports its commands late, and lets no error through."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table, then those added to it."""
        return [*COMMANDS, *(name for name in self.commands if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command when it is asked for."""
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name].where.partition(":")
            found = getattr(importlib.import_module(module), attribute)
            self.add_command(everywhere(found), cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in COMMANDS])

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command line and exit; the one place that catches everything."""
        debug = "--debug" in _words(args, extra)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            say("interrupted")
            sys.exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        except HoldfastError as error:
            _tell(str(error), debug=debug)
            # 92 and 93 are what ranks say to their agent, see runtime.vault
            sys.exit(error.exit_code if error.exit_code in CODES else FAILED)
        except ModuleNotFoundError as error:
            sys.exit(_tell_missing(error, debug=debug))
        except Exception as error:  # noqa: BLE001 - the boundary: a bug is told, with what to do
            _tell(f"{type(error).__name__}: {error}", debug=debug)
            say("This is a bug of Holdfast. Run it again with --debug and report the traceback.")
            sys.exit(FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def _words(args: Sequence[Any], extra: Mapping[str, Any]) -> Sequence[str]:
    given = args[0] if args else extra.get("args")
    return sys.argv[1:] if given is None else given


def _tell(message: str, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    say(f"error: {message}")


def _tell_missing(error: ModuleNotFoundError, *, debug: bool) -> int:
    missing = (error.name or "").partition(".")[0]
    if missing not in EXTRAS:
        _tell(f"{error}; is Holdfast installed whole?", debug=debug)
        return FAILED
    _tell(
        f"this command needs {missing}: pip install 'holdfast[{EXTRAS[missing]}]'",
        debug=debug,
    )
    return click.UsageError.exit_code


@click.command(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="holdfast", message="%(package)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Keep model training running on rented GPU clusters that fail.

    New here? `holdfast demo` shows the whole idea on this computer.
    """
    context.ensure_object(Session)


everywhere(main)
