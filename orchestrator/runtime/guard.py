"""The guard of one attempt on one node: it outlives the agent, cleans up, and writes the proof.

`launch` starts it in a session of its own; its one child is the agent. It adopts every orphan below
it. When the agent is gone, or does not answer for itself before its deadline, the guard kills
everything of the attempt on this node, looks until two looks in a row find nothing, writes
`gone.json` and exits. It decides nothing else, opens no connection and reads no configuration: the
less it does, the less can go wrong with it. If the guard itself is killed, the agent ends its ranks
and itself; if both are, only a sweep by `launch` proves anything.

    python -m orchestrator.runtime.guard --home DIR --run JOB.ATTEMPT
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import PermanentError
from orchestrator.runtime.cgroup import ControlGroup
from orchestrator.runtime.kernel import adopt_orphans, boottime
from orchestrator.runtime.place import Place, clear_leftovers, read_json, write_json
from orchestrator.runtime.processes import Sweep, Target, describe
from orchestrator.runtime.tether import VARIABLE, GuardEnd

AGENT = "orchestrator.runtime.agent"
REAP_EVERY = 1.0  #: seconds between two looks for orphans that ended
SWEEP_LIMIT = 5.0  #: seconds after which survivors are named in the log, and the sweep goes on
PROOF_TRIES = 60  #: how often the proof is tried on a disk that refuses, once a second


class Guard:
    """One life of a guard."""

    def __init__(self, place: Place) -> None:
        """Prepare; nothing runs yet."""
        self._place = place
        self._group: ControlGroup | None = None
        self._wake = socket.socketpair()
        self._told_to_stop = False

    def run(self, agent: Sequence[str]) -> None:
        """Run the agent (an argv), and return when nothing of the attempt is left but this."""
        adopt_orphans()
        self._listen_to_signals()
        self._group = ControlGroup.make(self._place)
        ours, theirs = socket.socketpair()
        child = self._start(agent, theirs)
        theirs.close()
        why = self._watch(child, GuardEnd(ours))
        self._clean()
        self._prove(why)

    def _listen_to_signals(self) -> None:
        for end in self._wake:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake[1].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self._told_to_stop = True

    def _start(self, agent: Sequence[str], line: socket.socket) -> subprocess.Popen[bytes]:
        door = None if self._group is None else self._group.door
        return subprocess.Popen(
            list(agent),
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self._place.marker, VARIABLE: str(line.fileno())},
            pass_fds=(line.fileno(),),
            preexec_fn=None if door is None else lambda: _enter(door),
        )

    def _watch(self, child: subprocess.Popen[bytes], line: GuardEnd) -> str:
        """Wait until the agent is gone or must go; return why."""
        while True:
            status = self._reap(child)
            open_still = line.listen()
            if status is not None:
                return line.why or f"the agent ended ({_how(status)})"
            if not open_still:
                return line.why or f"the agent ended ({self._last_status(child)})"
            if self._told_to_stop:
                return "the guard was told to stop"
            left = REAP_EVERY if line.deadline is None else line.deadline - boottime()
            if left <= 0:
                return "alone for too long: neither controller nor register was heard in time"
            self._sleep(line, min(left, REAP_EVERY))

    def _last_status(self, child: subprocess.Popen[bytes]) -> str:
        """Say how the agent ended; it closes its line a moment before the kernel reports it."""
        until = time.monotonic() + REAP_EVERY
        while time.monotonic() < until:
            status = self._reap(child)
            if status is not None:
                return _how(status)
            time.sleep(0.002)
        return "it closed its line and runs on"

    def _sleep(self, line: GuardEnd, seconds: float) -> None:
        ready, _, _ = select.select([line.fileno(), self._wake[0].fileno()], [], [], seconds)
        if self._wake[0].fileno() in ready:
            self._wake[0].recv(4_096)

    def _reap(self, child: subprocess.Popen[bytes]) -> int | None:
        """Bury every dead child; return the agent's exit status if it is among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return child.returncode
            if pid == 0:
                return child.returncode
            if pid == child.pid:
                child.returncode = os.waitstatus_to_exitcode(status)

    def _clean(self) -> None:
        """Kill all of the attempt but this process; returns only when nothing is left.

        There is no other limit: what cannot be killed (state D) may still write, and a guard that
        gave up would leave nobody to say so.
        """
        target = Target(self._place.marker, below=frozenset({os.getpid()}))
        sweep = Sweep(target)
        empty = False
        while not (empty and sweep.done):
            empty = self._group is None or self._group.kill(limit=SWEEP_LIMIT)
            sweep.quiet = 0
            if not sweep.run(SWEEP_LIMIT):
                print(f"guard: cannot kill {describe(sweep.left)}", file=sys.stderr, flush=True)
            self._bury()
        if self._group is not None:
            self._group.remove()

    def _bury(self) -> None:
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return
            except ChildProcessError:
                return

    def _prove(self, why: str) -> None:
        """Write `gone.json`; a disk that refuses is tried again. Without it a sweep must prove."""
        clear_leftovers(self._place.folder)
        proof = {"at": time.time(), "by": "guard", "why": why, "agent": nonce(self._place)}
        for _ in range(PROOF_TRIES):
            try:
                write_json(self._place.gone, proof)
            except OSError as error:
                print(f"guard: the proof cannot be written: {error}", file=sys.stderr, flush=True)
                time.sleep(1.0)
            else:
                return


def nonce(place: Place) -> str:
    """Return the nonce of the agent that was last here; "" if none ever listened."""
    try:
        said = read_json(place.agent)
    except (OSError, PermanentError):
        return ""
    return "" if said is None else str(said.get("agent", ""))


def _enter(door: bytes) -> None:
    """Enter a control group, between fork and exec. Refusal is no error: the sweep is enough."""
    try:
        descriptor = os.open(door, os.O_WRONLY)
        os.write(descriptor, b"0")
        os.close(descriptor)
    except OSError:
        return


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit {status}"


def main(argv: Sequence[str] | None = None) -> int:
    """Guard the agent of one attempt until nothing of it is left."""
    parser = argparse.ArgumentParser(prog="orchestrator.runtime.guard")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--run", required=True)
    parser.add_argument("--agent", default=AGENT, help="module of the agent")
    asked = parser.parse_args(argv)
    agent = ["-m", asked.agent, "--home", str(asked.home), "--run", asked.run]
    Guard(Place(asked.home, asked.run)).run([sys.executable, *agent])
    return 0


if __name__ == "__main__":
    sys.exit(main())
