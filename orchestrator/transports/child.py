"""One command of this computer, as a child process with a limit, and at most so much output."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

from orchestrator.errors import PermanentError, TransientError
from providers.api import Completed

OUTPUT_MAX = 4_000_000  #: bytes kept of each output; a node cannot fill our memory
#: What systemd told the daemon alone: nobody else shall speak for it.
DROPPED = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})


def run_child(
    name: str, argv: Sequence[str], *, stdin: bytes, limit: float, env: Mapping[str, str]
) -> Completed:
    """Run `argv` for at most `limit` seconds, with `env` on top of ours; `name` is for errors.

    Raises `TransientError` if the limit passed (its whole process group is killed),
    `PermanentError` if the program cannot be started.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in DROPPED}
    # Files, not pipes: neither an endless output nor a daemon left behind with it holds us.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**inherited, **env},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise PermanentError(f"{name}: cannot run {argv[0]}: {error}") from error
        try:
            child.communicate(stdin, timeout=limit)
        except subprocess.TimeoutExpired as error:
            _kill_group(child)
            raise TransientError(f"{name}: no answer within {limit:g} s") from error
        return Completed(child.returncode, _beginning(out), _beginning(err))


class OwnRun:
    """Runs argv on this computer, for what no node can say: a provider's own commands."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        """`env` is added to ours."""
        self._env = dict(env or {})

    def __call__(self, argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
        """Run `argv` for at most `limit` seconds; raises as `run_child` does."""
        return run_child("this computer", argv, stdin=stdin, limit=limit, env=self._env)


def _beginning(output: IO[bytes]) -> bytes:
    output.seek(0)
    return output.read(OUTPUT_MAX)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended between the limit and the signal
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
