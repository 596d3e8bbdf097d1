"""Real processes for the tests of guard, launcher and ranks; whatever a test leaves is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from orchestrator.runtime import processes
from orchestrator.runtime.place import Place
from orchestrator.runtime.processes import Process, Target

T = TypeVar("T")

#: five processes: one that waits, one in a session of its own, two that lost their parents, one
#: that ignores what it can
TREE = """
setsid sleep 300 &
(setsid nohup sleep 300 >/dev/null 2>&1 &)
(sleep 300 &)
bash -c 'trap "" TERM HUP INT; sleep 300; :' &
sleep 300
"""


def wait_for(what: Callable[[], T], *, limit: float = 10.0, pause: float = 0.005) -> T:
    """Return the first true answer; fails after `limit` seconds."""
    until = time.monotonic() + limit
    while not (answer := what()):
        assert time.monotonic() < until, f"not within {limit:g} s"
        time.sleep(pause)
    return answer


def marked(place: Place) -> tuple[Process, ...]:
    """Return every living process of an attempt on a node."""
    return processes.find(Target(place.marker))


def grow(place: Place, script: str = TREE) -> subprocess.Popen[bytes]:
    """Start a shell script as a process of the attempt."""
    env = {**os.environ, **place.marker}
    return subprocess.Popen(["bash", "-c", script], env=env, start_new_session=True)


@contextmanager
def cleared(home: Path) -> Iterator[None]:
    """Kill whatever is left of a node when the test is over."""
    try:
        yield
    finally:
        processes.kill_home(home)


def python(script: str) -> list[str]:
    """Return the argv of a Python script given as text."""
    return [sys.executable, "-c", script]
