"""What /proc says about processes, and how a whole tree of them is ended and proven gone.

Every process of an attempt on a node carries the pair HOLDFAST_RUN and HOLDFAST_HOME in its
environment, and its children inherit it whatever they do (setsid, double fork, nohup), unless they
take care to lose it; those are still found below a living parent. A sweep kills what it finds until
two looks in a row find nothing. A zombie counts as gone: it holds no memory, no file and no
accelerator, and only its parent can reap it.

Used by the guard, the launcher, the agent and the local provider. Linux only, standard library
only, Python 3.10. Signals go through a pidfd, so that a re-used pid is never hit.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import TransientError
from orchestrator.runtime.cgroup import ControlGroup
from orchestrator.runtime.place import Place, places, read_json

PROC = Path("/proc")
DEAD = frozenset("ZXx")  #: states of a process that runs no more
LOOK_PAUSE = 0.005  #: seconds between two looks of a sweep; longer than an execve takes


@dataclass(frozen=True)
class Process:
    """One life of a pid. Two lives of the same pid differ in `started`."""

    pid: int
    parent: int
    state: str  #: R S D T t Z X I, as in proc(5)
    started: int  #: clock ticks after boot
    threads: int = 1

    @property
    def dead(self) -> bool:
        """Say whether it runs no more: a zombie, unless only its first thread has ended."""
        return self.state in DEAD and self.threads <= 1


@dataclass(frozen=True)
class Target:
    """Whom a sweep is after: carriers of a marker, and whatever is below certain processes.

    `marker` must be in the environment, with these values; `present` must be there with any value.
    `below` names processes whose descendants are meant as well (not they themselves). Nothing in
    `spare` is ever touched, nor found; what is below a spared process only if it is marked. What is
    in `shelter` is not touched either, nor anything below it.
    """

    marker: Mapping[str, str]
    present: frozenset[str] = frozenset()
    below: frozenset[int] = frozenset()
    spare: frozenset[int] = field(default_factory=frozenset)
    shelter: frozenset[int] = field(default_factory=frozenset)


def read(pid: int) -> Process | None:
    """Return what /proc/PID/stat says, or None if there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name in brackets may hold anything
    return Process(pid, int(fields[1]), fields[0], int(fields[19]), int(fields[17]))


def every() -> Iterator[Process]:
    """Yield every process that is not dead."""
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            process = read(int(entry.name))
            if process is not None and not process.dead:
                yield process


def environment(pid: int) -> dict[str, str] | None:
    """Return the environment a process was started with; None if it is gone or not ours to read."""
    try:
        data = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def carries(pid: int, marker: Mapping[str, str], present: Collection[str] = ()) -> bool:
    """Say whether a process carries every pair of `marker` and every name of `present`."""
    found = environment(pid)
    if not found:
        return False
    return all(found.get(name) == value for name, value in marker.items()) and all(
        name in found for name in present
    )


def alive(pid: int, marker: Mapping[str, str]) -> bool:
    """Say whether `pid` lives and is one of the marked, not a stranger that got its number."""
    process = read(pid)
    return process is not None and not process.dead and carries(pid, marker)


def find(target: Target) -> tuple[Process, ...]:
    """Return the living processes that `target` means, and all their descendants."""
    processes = {process.pid: process for process in every()}
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    spare = target.spare | {os.getpid()} | _below(target.shelter, children)
    todo = [
        pid for pid in processes if pid not in spare and carries(pid, target.marker, target.present)
    ]
    for root in target.below:
        todo.extend(children.get(root, ()))
    found: dict[int, Process] = {}
    while todo:
        pid = todo.pop()
        if pid in found or pid in spare:
            continue
        found[pid] = processes[pid]
        todo.extend(children.get(pid, ()))
    return tuple(found.values())


def _below(roots: frozenset[int], children: Mapping[int, list[int]]) -> frozenset[int]:
    """Return these processes and everything below them."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return frozenset(found)


def descendants(pid: int) -> tuple[Process, ...]:
    """Return every living process below `pid`."""
    return find(Target(marker={_NOBODY: ""}, below=frozenset({pid})))


_NOBODY = "HOLDFAST_MARKS_NOBODY"  # a marker that no process carries


def send(process: Process, number: int) -> bool:
    """Signal this very life of a pid; False if it is over.

    The pidfd is opened first and the start time compared after: a pid that was given to somebody
    else in between is noticed, and from then on the pidfd holds the identity.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        seen = read(process.pid)
        if seen is None or seen.started != process.started:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it lives and is not ours to kill: it stays found, and so no proof is given
    finally:
        os.close(descriptor)
    return True


def kill(processes: Iterable[Process]) -> int:
    """Send SIGKILL to each; return how many were still there."""
    return sum(send(process, signal.SIGKILL) for process in processes)


@dataclass
class Sweep:
    """Looks, each killing what it finds, until two in a row have found nothing."""

    target: Target
    killed: int = 0
    quiet: int = 0  #: looks in a row that found nothing
    left: tuple[Process, ...] = ()  #: what the last look found

    @property
    def done(self) -> bool:
        """Say whether it is proven that nothing is left."""
        return self.quiet >= 2

    def look(self) -> None:
        """Take one look."""
        self.left = find(self.target)
        self.quiet = 0 if self.left else self.quiet + 1
        self.killed += kill(self.left)

    def run(self, limit: float) -> bool:
        """Look again and again for at most `limit` seconds; say whether it is done."""
        until = time.monotonic() + limit
        self.look()
        while self.quiet < 2 and time.monotonic() < until:
            time.sleep(LOOK_PAUSE)
            self.look()
        return self.done


def sweep(target: Target, *, limit: float) -> int:
    """Kill until nothing is left; return how many signals that took.

    Raises `TransientError` if something outlives the limit (uninterruptible, state D): then nothing
    is proven, and the accelerators may still be in use.
    """
    sweeping = Sweep(target)
    if not sweeping.run(limit):
        raise TransientError(f"still there after {limit:g} s: {describe(sweeping.left)}")
    return sweeping.killed


def describe(processes: Iterable[Process]) -> str:
    """Name processes in a message, at most ten."""
    named = [f"{process.pid} (state {process.state})" for process in processes]
    more = f" and {len(named) - 10} more" if len(named) > 10 else ""
    return ", ".join(named[:10]) + more


def kill_home(home: Path, *, limit: float = 10.0) -> int:
    """Kill every process of a node, as a loss of power would; return how many signals it took.

    Raises `TransientError` if something survives. The caller is spared.
    """
    return sweep_home(home, Target({"HOLDFAST_HOME": os.path.realpath(home)}), limit=limit)


def sweep_home(home: Path, target: Target, *, limit: float) -> int:
    """Empty and remove the control groups of all attempts on a node, then sweep `target`.

    Raises as `sweep` does.
    """
    groups = [group for place in places(home) if (group := ControlGroup.of(place)) is not None]
    for group in groups:
        group.kill(limit=limit)
    killed = sweep(target, limit=limit)
    for group in groups:
        group.remove()
    return killed


def living_agent(place: Place) -> dict[str, Any] | None:
    """Return the `agent.json` of an agent that lives, with its guard; None otherwise.

    An agent without its guard is about to end its ranks and itself.
    """
    said = read_json(place.agent)
    if said is None:
        return None
    pids = (said.get("pid"), said.get("guard_pid"))
    both = all(isinstance(pid, int) and alive(pid, place.marker) for pid in pids)
    return said if both else None
