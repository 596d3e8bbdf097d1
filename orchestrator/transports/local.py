"""Commands on a local node: child processes of this computer, with the node's marker.

Refuses as an unreachable host would while the machine has no power. Every command has a limit;
what outlives it is killed with its whole process group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import TransientError
from orchestrator.transports.child import DROPPED, OUTPUT_MAX, run_child
from providers.api import Completed
from providers.local import is_running


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
        name = self._home.name
        if not is_running(self._home):
            raise TransientError(f"{name}: no route to host (the machine is down)")
        env = {**self._env, "HOLDFAST_HOME": str(self._home)}
        ended = run_child(name, argv, stdin=stdin, limit=limit, env=env)
        if ended.code < 0 and not is_running(self._home):
            raise TransientError(f"{name}: the connection was lost")
        return ended


__all__ = ["DROPPED", "OUTPUT_MAX", "LocalTransport"]
