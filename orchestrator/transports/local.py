"""Commands on a local node: child processes of this computer, with the node's marker.

Refuses as an unreachable host would while the machine has no power. Every command has a limit;
what outlives it is killed with its whole process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from orchestrator.errors import PermanentError, TransientError
from providers.api import Completed
from providers.local import is_running

OUTPUT_MAX = 4_000_000  #: bytes kept of each output; a node cannot fill our memory
#: What systemd told the daemon alone: nobody else shall speak for it.
DROPPED = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})


class LocalTransport:
    """Runs argv on one local node."""

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        """Bind to the node's folder."""
        self._home, self._env = home, dict(env or {})

    def __call__(self, argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
        """Run `argv` for at most `limit` seconds.

        Raises `TransientError` if the machine has no power or the limit passed, `PermanentError`
        if the program cannot be started.
        """
        if not is_running(self._home):
            raise TransientError(f"{self._home.name}: no route to host (the machine is down)")
        inherited = {name: value for name, value in os.environ.items() if name not in DROPPED}
        env = {**inherited, **self._env, "HOLDFAST_HOME": str(self._home)}
        # Files, not pipes: neither an endless output nor a daemon left behind with it holds us.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                child = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    env=env,
                    start_new_session=True,
                )
            except OSError as error:
                raise PermanentError(f"{self._home.name}: cannot run {argv[0]}: {error}") from error
            code = self._wait(child, stdin, limit)
            return Completed(code, _beginning(out), _beginning(err))

    def _wait(self, child: subprocess.Popen[bytes], stdin: bytes, limit: float) -> int:
        try:
            child.communicate(stdin, timeout=limit)
        except subprocess.TimeoutExpired as error:
            _kill_group(child)
            raise TransientError(f"{self._home.name}: no answer within {limit:g} s") from error
        if child.returncode < 0 and not is_running(self._home):
            raise TransientError(f"{self._home.name}: the connection was lost")
        return child.returncode


def _beginning(output: IO[bytes]) -> bytes:
    output.seek(0)
    return output.read(OUTPUT_MAX)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended between the limit and the signal
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
