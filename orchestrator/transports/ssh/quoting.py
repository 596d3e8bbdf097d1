"""A list of words -> the one line that an SSH server hands to the user's shell.

SSH has no argv: the server always gives one string to the login shell. This is the only place
where words are quoted for a shell, and they are quoted once. The shell must be a POSIX one, which
`holdfast cluster doctor` checks.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from orchestrator.errors import PermanentError

LINE_MAX = 100_000  #: bytes; Linux takes 131,072 for one argument
KILL_AFTER = 2  #: seconds between SIGTERM and SIGKILL for a command beyond its limit


def command_line(argv: Sequence[str]) -> str:
    """Return the line whose words a POSIX shell reads back as `argv`.

    Raises `PermanentError` for what no argument list can hold: nothing, a NUL, too many bytes.
    """
    if not argv:
        raise PermanentError("an empty command")
    if any("\0" in word for word in argv):
        raise PermanentError(f"a command with a NUL in it: {argv[0]!r:.60}")
    try:
        line = shlex.join(argv)
        size = len(line.encode())
    except UnicodeEncodeError as error:
        raise PermanentError(f"a command that is not text: {argv[0]!r:.60}") from error
    if size > LINE_MAX:
        raise PermanentError(f"a command of {size} bytes; give long input on stdin")
    return line


def limited(argv: Sequence[str], seconds: float) -> list[str]:
    """Return `argv` run by timeout(1): nobody else ends it if the connection breaks meanwhile."""
    limit = max(1, math.ceil(seconds))
    return ["timeout", f"--kill-after={KILL_AFTER}", str(limit), *argv]
