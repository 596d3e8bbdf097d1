"""One command on a node, over any transport: start an agent, find it, or sweep what is left of it.

    python -m orchestrator.runtime.launch start --home DIR                    (AgentSpec on stdin)
    python -m orchestrator.runtime.launch find  --home DIR --run JOB.ATTEMPT
    python -m orchestrator.runtime.launch sweep --home DIR --run JOB.ATTEMPT --token N
    python -m orchestrator.runtime.launch logs  --home DIR --run JOB.ATTEMPT  (request on stdin)
    python -m orchestrator.runtime.launch examine --home DIR --token N        (request on stdin)

Each prints one JSON object on stdout; an error is one JSON object on stderr, with the exit code of
its class in `orchestrator.errors`. `start` and `sweep` hold the node's lock, and refuse a token
below the highest that the node has seen: a controller that lost its lease changes nothing here.
`start` may be repeated: an agent of the attempt that lives is found, never doubled. Whatever an
older attempt or agent left is killed, and proven gone, before anything new is started; so is an
examination of an idle node.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.runtime import (
    examination,
    guard,
    interfaces,
    porter,
    processes,
    ranklogs,
    staging,
)
from orchestrator.runtime import spec as specs
from orchestrator.runtime.cgroup import ControlGroup
from orchestrator.runtime.place import (
    Place,
    boot_id,
    clear_leftovers,
    locked,
    places,
    raise_token,
    read_json,
    write_atomically,
    write_json,
)
from orchestrator.runtime.processes import Target, living_agent
from orchestrator.runtime.spec import AgentSpec

LOCK_LIMIT = 12.0  #: seconds to wait for another launcher
START_LIMIT = 15.0  #: seconds for the agent to listen
SWEEP_LIMIT = 10.0  #: seconds for killed processes to be gone
_LOOK_PAUSE = 0.004

Said = dict[str, Any]


def start(home: Path, spec: AgentSpec, agent: str = guard.AGENT) -> Said:
    """Start the agent of an attempt, or find the one that lives; return its `agent.json`.

    Raises `PermanentError` for a stale token or attempt, or if the agent ends at once;
    `TransientError` if the lock is not free, something old cannot be killed, or the agent does not
    listen in time.
    """
    place = Place(home, spec.run)
    with locked(home, limit=LOCK_LIMIT):
        _accept(home, spec.token)
        living = living_agent(place)
        if living is not None:
            return living
        _refuse_if_newer(home, spec)
        _clear(home, why=f"cleared for {spec.run}")
        _furnish(place, spec)
        return _await_agent(place, _fork_guard(place, agent, spec.host))


def find(place: Place) -> Said:
    """Return {"agent": agent.json of one that lives, "gone": the proof if any, "boot_id"}."""
    living = living_agent(place)
    gone = None if living is not None else read_json(place.gone)
    return {"agent": living, "gone": gone, "boot_id": boot_id(place.home)}


def sweep(place: Place, token: int) -> Said:
    """Kill what is left of an attempt on this node; return the proof, and keep it on disk.

    Raises as `start` does. A proof that an earlier sweep or the guard wrote is kept if nothing was
    found since.
    """
    with locked(place.home, limit=LOCK_LIMIT):
        _accept(place.home, token)
        killed = _kill(place)
        clear_leftovers(place.folder)
        proof = read_json(place.gone)
        if proof is None or killed:
            proof = _prove(place, f"swept for token {token}")
        return proof


def _accept(home: Path, token: int) -> None:
    highest = raise_token(home, token)
    if token < highest:
        raise PermanentError(f"token {token} is below {highest}, the highest this node has seen")


def _refuse_if_newer(home: Path, spec: AgentSpec) -> None:
    """Refuse to replace a living agent of a later attempt of the same job: the order is late."""
    for place in places(home):
        job, _, attempt = place.run.rpartition(".")
        newer = job == spec.job and attempt.isdigit() and int(attempt) > spec.attempt
        if newer and living_agent(place) is not None:
            raise PermanentError(f"{place.run} runs here already; {spec.run} is an older attempt")


def _clear(home: Path, *, why: str) -> None:
    """End whatever runs on the node, of any attempt, and write the proofs.

    Processes that carry only HOLDFAST_HOME are launchers like this one, waiting for the lock.
    """
    marked = Target({"HOLDFAST_HOME": str(home)}, present=frozenset({"HOLDFAST_RUN"}))
    processes.sweep_home(home, marked, limit=SWEEP_LIMIT)
    clear_leftovers(home)
    for place in places(home):
        clear_leftovers(place.folder)
        if read_json(place.gone) is None:
            _prove(place, why)


def _kill(place: Place) -> int:
    group = ControlGroup.of(place)
    if group is not None:
        group.kill(limit=SWEEP_LIMIT)
    killed = processes.sweep(Target(place.marker), limit=SWEEP_LIMIT)
    if group is not None:
        group.remove()
    return killed


def _prove(place: Place, why: str) -> Said:
    place.make()
    proof = {"at": time.time(), "by": "sweep", "why": why, "agent": guard.nonce(place)}
    write_json(place.gone, proof)
    return proof


def _furnish(place: Place, spec: AgentSpec) -> None:
    """Make the attempt's folder as a new agent expects it."""
    place.make()
    for old in (place.agent, place.gone):
        old.unlink(missing_ok=True)
    staging.stage(place.site)
    write_json(place.spec, specs.encode(spec), mode=0o600)
    write_atomically(place.key, spec.key.encode(), mode=0o600)


class _Child(Protocol):
    returncode: Any

    def poll(self) -> int | None: ...


class _Distant:
    """A guard that a porter started: not our child."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        process = processes.read(self._pid)
        return None if process is not None and not process.dead else 1


def _fork_guard(place: Place, agent: str, host: str) -> _Child:
    """Start the guard in a session of its own; it keeps nothing of this process open.

    Inside a scheduler's allocation its porter starts it, for this command's own step ends.
    """
    command = [sys.executable, "-m", "orchestrator.runtime.guard", "--home", str(place.home)]
    command += ["--run", place.run, "--agent", agent]
    env = {**interfaces.variables(host, os.environ), **_environment(place, os.environ)}
    asked = os.environ.get(porter.VARIABLE)
    if asked:
        pid = porter.ask(Path(asked), command, env, place.home, place.logs / "agent.log")
        return _Distant(pid)
    with (place.logs / "agent.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.home,
            env=env,
            start_new_session=True,
        )


def _environment(place: Place, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the guard's environment: the staged runtime comes first, nothing else of ours."""
    dropped = ("HOLDFAST_", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "TORCHELASTIC_")
    kept = {name: value for name, value in inherited.items() if not name.startswith(dropped)}
    return {**kept, **place.marker, "PYTHONPATH": str(place.site)}


def _await_agent(place: Place, child: _Child) -> Said:
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until:
        said = read_json(place.agent)
        if said is not None:
            child.returncode = 0  # it is meant to outlive this process; do not warn of it
            return said
        if child.poll() is not None:
            raise PermanentError(f"the agent ended at once: {_last_lines(place)}")
        time.sleep(_LOOK_PAUSE)
    child.returncode = 0
    raise TransientError(f"the agent did not listen within {START_LIMIT:g} s")


def _last_lines(place: Place) -> str:
    try:
        return (place.logs / "agent.log").read_text(errors="replace")[-800:].strip()
    except OSError as error:
        return f"(its log cannot be read: {error})"


def _read_spec() -> AgentSpec:
    return specs.decode(_read_input())


def _read_input() -> Any:
    try:
        return json.load(sys.stdin)
    except ValueError as error:
        raise specs.BadSpecError(f"standard input is no JSON: {error}") from error


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="orchestrator.runtime.launch", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("start", "find", "sweep", "logs", "examine"):
        one = verbs.add_parser(verb)
        one.add_argument("--home", required=True, type=Path)
        if verb == "start":
            one.add_argument("--agent", default=guard.AGENT, help=argparse.SUPPRESS)
        elif verb != "examine":
            one.add_argument("--run", required=True)
        if verb in ("sweep", "examine"):
            one.add_argument("--token", required=True, type=int)
    return parser.parse_args(argv)


def _answer(asked: argparse.Namespace) -> Said:
    home = Path(os.path.realpath(asked.home))
    if asked.verb == "start":
        return start(home, _read_spec(), asked.agent)
    if asked.verb == "examine":
        return examination.examine(home, asked.token, _read_input())
    place = Place(home, specs.check_run(asked.run))
    match asked.verb:
        case "find":
            return find(place)
        case "logs":
            return ranklogs.tell(place, ranklogs.asked(_read_input()))
        case _:
            return sweep(place, asked.token)


def main(argv: Sequence[str] | None = None) -> int:
    """Do one verb; print its answer, or the error, as JSON."""
    try:
        print(json.dumps(_answer(_parse(argv))))
    except HoldfastError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(json.dumps({"error": str(error), "kind": "OSError"}), file=sys.stderr)
        return TransientError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
