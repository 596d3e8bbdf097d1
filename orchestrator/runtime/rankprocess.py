"""One rank as a process: how it is started, and what the kernel and the rank itself say of it.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

from orchestrator.runtime import exits, packets, rankplan
from orchestrator.runtime.ending import is_stopped
from orchestrator.runtime.kernel import allow_tracing, die_with
from orchestrator.runtime.mailbox import Beat
from orchestrator.runtime.paces import Paces
from orchestrator.runtime.place import Place
from orchestrator.runtime.processes import descendants
from orchestrator.runtime.rankplan import RankPlan
from orchestrator.runtime.reports import RankReport, RankState
from orchestrator.runtime.signs import OutputSteps
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.warm import WarmChild, WarmParent

STOPPED_FOR = 0.4  #: seconds between the two looks that call a rank stopped

Child = Union["subprocess.Popen[bytes]", WarmChild]


@dataclass
class RankProcess:
    """One process that this agent started; of `launch: command` the only one of its node."""

    rank: int
    local_rank: int
    child: Child
    log: Path
    output: OutputSteps | None  #: set where progress is read from the output
    opaque: bool  #: `launch: command`: its descendants are the ranks
    line: socket.socket | None = None  #: to the rank; None to an opaque command
    survives: bool = False  #: it said that it can leave a generation and join the next
    parked: bool = False  #: it left its generation, and waits for the next
    beat: Beat | None = None
    beat_at: float | None = None  #: epoch seconds
    paces: Paces = field(default_factory=Paces)  #: its own time in the last steps
    stopped_since: float | None = None  #: on the clock of the looks
    mourned: bool = False  #: its end was seen

    @classmethod
    def spawn(
        cls, spec: AgentSpec, place: Place, plan: RankPlan, local_rank: int, warm: WarmParent
    ) -> RankProcess:
        """Start one; raises `OSError` if the command or the working directory is not there.

        Forked by the warm parent if there is one, else from nothing. In a session of its own, so
        that a terminal's signals do not reach it. The kernel kills it with the thread that calls
        this, or with the warm parent.
        """
        opaque = spec.launch == "command"
        rank = plan.group_rank if opaque else plan.rank(local_rank)
        env = rankplan.environment(spec, place, plan, os.environ)
        log = place.log(plan.generation, rank)
        ours: socket.socket | None = None
        theirs: socket.socket | None = None
        if not opaque:
            env.update(rankplan.seat(plan, local_rank))
            ours, theirs = packets.pair()
            ours.setblocking(False)
        try:
            child: Child | None = None
            if theirs is not None:
                child = warm.fork(env, str(log), theirs.fileno())
            if child is None:
                child = _popen(rankplan.argv(spec), spec.workdir, env, log, theirs)
        except OSError:
            if ours is not None:
                ours.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        reads = spec.progress["kind"] == "stdout"
        output = OutputSteps(spec.progress["pattern"], log) if reads else None
        return cls(rank, local_rank, child, log, output, opaque, ours)

    @property
    def ended(self) -> bool:
        """Say whether it was reaped."""
        return self.child.returncode is not None

    # the line

    def say(self, body: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> bool:
        """Tell the rank something; False if it cannot be told."""
        if self.line is None:
            return False
        try:
            packets.send(self.line, body, descriptors)
        except OSError:  # it is gone, or never reads
            return False
        return True

    def heard(self) -> list[dict[str, Any]]:
        """Return what the rank said on its line since the last call."""
        said: list[dict[str, Any]] = []
        while self.line is not None and len(said) < 64:
            try:
                body, descriptors = packets.receive(self.line)
            except BlockingIOError:
                break
            packets.close(descriptors)
            if body is None:
                self.hang_up()
            else:
                said.append(body)
        return said

    def hang_up(self) -> None:
        """Close the line."""
        if self.line is not None:
            with suppress(OSError):
                self.line.close()
            self.line = None

    # what it is like

    def is_stopped_at(self, now: float) -> bool:
        """Say whether two looks, far enough from each other, saw it stopped."""
        if self.ended or not self._stopped():
            self.stopped_since = None
            return False
        if self.stopped_since is None:
            self.stopped_since = now
        return now - self.stopped_since >= STOPPED_FOR

    def _stopped(self) -> bool:
        if is_stopped(self.child.pid):
            return True
        return self.opaque and any(one.state == "T" for one in descendants(self.child.pid))

    def tells_most(self) -> tuple[int, float]:
        """Sort key of several that ended at once: who explains the others comes first.

        A failed verification, then signals, then whoever wrote its last words first: a rank that
        is killed takes its peers along by broken connections, within milliseconds.
        """
        code = self.child.returncode or 0
        order = 0 if code in (exits.VERIFICATION, exits.MEMORY) else 1 if code < 0 else 2
        try:
            return order, self.log.stat().st_mtime
        except OSError:
            return order, 0.0

    def report(self, *, gone: bool) -> RankReport:
        """Return what the controller is told; `gone`: it is proven that nothing of it is left."""
        beat = self.beat
        return RankReport(
            rank=self.rank,
            local_rank=self.local_rank,
            pid=self.child.pid,
            state=RankState.GONE if gone and (self.ended or not self.parked) else self._state,
            phase="init" if beat is None else beat.phase,
            step=None if beat is None else beat.step,
            step_at=self.beat_at,
            loss=None if beat is None else beat.loss,
            tokens_per_second=None if beat is None else beat.tokens_per_second,
            data_wait=None if beat is None else beat.data_wait,
            exit_code=self.child.returncode,
            own=self.paces.own,
            own_step=self.paces.step,
            role="" if beat is None else beat.role,
        )

    @property
    def _state(self) -> RankState:
        if self.ended:
            return RankState.EXITED
        return RankState.RUNNING if self.stopped_since is None else RankState.STOPPED


def _popen(
    argv: list[str], workdir: str, env: dict[str, str], log: Path, line: socket.socket | None
) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def before_exec() -> None:
        die_with(parent)
        allow_tracing()

    passed: tuple[int, ...] = ()
    if line is not None:
        passed = (line.fileno(),)
        env = {**env, packets.VARIABLE: str(line.fileno())}
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=workdir,
            env=env,
            pass_fds=passed,
            start_new_session=True,
            preexec_fn=before_exec,
        )
