"""Commands on a node that has our bundle: installed on first use, and again if it disappears.

Wraps a transport. What runs is unchanged; only, before the first command (and after one that
failed on a node that lost the folder) the bundle is put there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.engines.bundle import INSTALLER, Bundle
from orchestrator.errors import PermanentError
from providers.api import Completed, Run

INSTALL_LIMIT = 60.0  #: seconds; the archive is below a megabyte
LOOK_LIMIT = 10.0


class Installed:
    """The bundle on the nodes of one cluster."""

    def __init__(self, bundle: Bundle, folder: Path, python: str) -> None:
        """`folder` is private to us on each node, `python` the interpreter there."""
        self._bundle, self._folder, self._python = bundle, folder, python
        self._have: set[str] = set()

    @property
    def folder(self) -> Path:
        """Our private folder on a node."""
        return self._folder

    @property
    def place(self) -> Path:
        """Where the bundle lies on a node."""
        return self._bundle.place(self._folder)

    @property
    def launch(self) -> tuple[str, ...]:
        """The program that starts, finds and sweeps agents there."""
        env = ("env", f"PYTHONPATH={self.place}", "PYTHONDONTWRITEBYTECODE=1")
        return (*env, self._python, "-m", "orchestrator.runtime.launch")

    @property
    def checks(self) -> tuple[str, ...]:
        """The program that runs the health checks there."""
        return (self._python, "-E", str(self.place / "healthchecks" / "__main__.py"))

    def wrap(self, node: str, run: Run) -> Run:
        """Return a transport of `node` that finds the bundle there."""

        def ready(argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
            fresh = node not in self._have and self.ensure(node, run)
            ended = run(argv, stdin=stdin, limit=limit)
            if ended.code == 0 or fresh or self._there(run):
                return ended
            self._have.discard(node)
            self.ensure(node, run)
            return run(argv, stdin=stdin, limit=limit)

        return ready

    def wrapped(self, run: Callable[[str], Run]) -> Callable[[str], Run]:
        """Return the transports of all nodes, each with the bundle."""
        return lambda node: self.wrap(node, run(node))

    def ensure(self, node: str, run: Run) -> bool:
        """Put the bundle there unless it is; say whether it was sent.

        Raises `PermanentError` with the node's words if it cannot be installed.
        """
        sent = not self._there(run)
        if sent:
            argv = [self._python, "-c", INSTALLER, str(self.place.parent), self._bundle.digest]
            ended = run(argv, stdin=self._bundle.data, limit=INSTALL_LIMIT)
            if ended.code != 0:
                why = ended.err.decode(errors="replace").strip()[-300:]
                raise PermanentError(f"{node}: Holdfast cannot be installed there: {why}")
        self._have.add(node)
        return sent

    def _there(self, run: Run) -> bool:
        return run(["test", "-d", str(self.place)], limit=LOOK_LIMIT).code == 0
