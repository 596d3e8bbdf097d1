"""A command on an idle node that work ends at once: active checks, as the controller asks for them.

It carries the node's marker as ranks do, so that whatever clears the node for an agent kills it
first; and it does not begin where an agent is, which the node's lock makes certain. It dies with
its launcher, and at its limit.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime.kernel import die_with
from orchestrator.runtime.place import Place, locked, places, raise_token
from orchestrator.runtime.processes import living_agent

NAME = "examination.0"  #: the run in its marker: no job is called so, for no attempt is number 0
LOCK_LIMIT = 12.0  #: seconds to wait for a launcher
LIMIT_MAX = 3_600.0  #: seconds
OUT_MAX = 256 * 1024  #: bytes of output that are kept
WORDS_MAX = 64


def examine(home: Path, token: int, request: Any) -> dict[str, Any]:
    """Run what is asked for: `{"argv": [...], "limit": seconds}`; return its output.

    `{"out", "code", "stopped"}`; `stopped` says that it was killed before its limit. Raises
    `PermanentError` for a stale token or a request that is none, `TransientError` where an agent
    is, or where the limit passed.
    """
    argv, limit = _asked(request)
    with locked(home, limit=LOCK_LIMIT):
        highest = raise_token(home, token)
        if token < highest:
            raise PermanentError(
                f"token {token} is below {highest}, the highest this node has seen"
            )
        if any(living_agent(place) is not None for place in places(home)):
            raise TransientError("an agent is on the node: it is not idle")
        child = _start(home, argv)
    try:
        out, _ = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise TransientError(f"the examination was not over within {limit:g} s") from error
    stopped = child.returncode == -signal.SIGKILL
    text = out[:OUT_MAX].decode(errors="replace")
    return {"out": text, "code": child.returncode, "stopped": stopped}


def _asked(request: Any) -> tuple[list[str], float]:
    match request:
        case {"argv": [str(), *_] as argv, "limit": int() | float() as limit}:
            words = all(isinstance(one, str) for one in argv) and len(argv) <= WORDS_MAX
            if words and not isinstance(limit, bool) and 0 < limit <= LIMIT_MAX:
                return list(argv), float(limit)
        case _:
            pass
    raise PermanentError(f"not a request for an examination: {request!r:.200}")


def _start(home: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    marker: Mapping[str, str] = Place(home, NAME).marker
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=home,
            env={**os.environ, **marker},
            start_new_session=True,
            preexec_fn=lambda: die_with(parent),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise PermanentError(f"cannot be started: {error}") from error
