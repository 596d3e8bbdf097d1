"""Nodes held in Ray by a detached actor each, and agents that live as long as their actor.

Before an agent is started on a node, an actor of ours must hold that node: a job of a moment
(`raydriver.py`, on the cluster's head) makes it, in a placement group pinned to exactly that node.
The actor holds a porter, the porter starts the guard. Everything else (find, sweep, logs, probes)
reaches nodes by their own transport and asks nothing of Ray: while Ray's head is gone, gangs go on
and are seen. If a node's raylet ends, its actor ends, and with it the agent: Ray may give the
node's resources to others then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.engines import raydriver
from orchestrator.engines.api import AgentAddress
from orchestrator.engines.installed import Installed
from orchestrator.engines.launched import LaunchedEngine
from orchestrator.engines.rayjobs import RayJobs, plain
from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.runtime.porter import LINGER, LIVES, VARIABLE, door
from orchestrator.runtime.spec import AgentSpec
from providers.api import Run

LOOK_LIMIT = 10.0  #: seconds for a knock at a porter's door
LEAVE_LIMIT = 15.0  #: seconds for a porter to take its leave
HOLD_LIMIT = 30.0  #: seconds one start waits for its actor; the next one goes on waiting
GATHER = 0.3  #: seconds in which nodes that are wanted at the same time come into one job
LOOK_EVERY = 0.25  #: seconds between two looks at a job
NODES_MAX = 64  #: nodes of one job: its line is one argument of a shell, of 128 KiB at most
JOB_LIMIT = 300.0  #: seconds until a job is given up that Ray neither runs nor ends
ALONE_MIN = 600.0  #: seconds that raylets should outlive Ray's head; below it somebody is told
ALONE_WANTED = 86_400.0  #: seconds that the warning asks for
LOG = logging.getLogger("holdfast.ray")


@dataclass(frozen=True, slots=True)
class Placing:
    """How nodes are held."""

    known_as: Mapping[str, tuple[str, ...]]  #: node -> addresses and names that Ray may call it by
    folder: Path  #: private to us, on each node
    driver: str  #: the interpreter with the cluster's own ray, on the head
    resources: Mapping[str, Mapping[str, float]]  #: node -> what is taken of it
    linger: float = LINGER  #: seconds that a node without an agent stays held
    room_limit: float = 15.0  #: seconds the job waits for room on its nodes


@dataclass(slots=True)
class _Batch:
    """Nodes that are put into one job, and what came of it."""

    id: str
    nodes: list[str]
    turn: threading.Lock = field(default_factory=threading.Lock)  #: who has it sees to the job
    closed: bool = False
    given_up_at: float | None = None  #: on the monotonic clock; None: not submitted yet
    outcome: dict[str, str] | None = None  #: node -> why it is not held, "" if it is


class RayHolds:
    """The actors that hold nodes of one cluster, and how they come about."""

    def __init__(
        self,
        placing: Placing,
        installed: Installed,
        bare: Callable[[str], Run],
        jobs: RayJobs,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`bare` gives the transport of a node; nothing is submitted yet."""
        self._placing, self._installed, self._bare, self._jobs = placing, installed, bare, jobs
        self._pause = pause
        self._lock = threading.Lock()
        self._batches: dict[str, _Batch] = {}
        self._open: _Batch | None = None

    def home(self, node: str) -> Path:
        """Return a node's folder, on the node."""
        return self._placing.folder / "nodes" / node

    def run(self, node: str) -> Run:
        """Return the transport of a node, with the bundle there."""
        return self._installed.wrap(node, self._bare(node))

    def launch(self, node: str) -> tuple[str, ...]:
        """Return the program that starts agents through the node's porter."""
        env, *rest = self._installed.launch
        return (env, f"{VARIABLE}={door(self.home(node))}", *rest)

    def held(self, node: str) -> bool:
        """Say whether a porter answers on the node."""
        argv = self._porter(node, "--ask", "knock")
        return self.run(node)(argv, limit=LOOK_LIMIT).code == 0

    def ensure(self, node: str, limit: float = HOLD_LIMIT) -> None:
        """See that an actor holds the node.

        Raises `TransientError` with Ray's reason if it does not now; `PermanentError` if Ray
        refuses us.
        """
        end = time.monotonic() + limit
        batch = self._join(node)
        if not batch.turn.acquire(timeout=limit):
            raise TransientError(f"{node}: Ray is still at it (job {batch.id})")
        try:
            outcome = self._see_to(batch, end)
        finally:
            batch.turn.release()
        why = outcome.get(node, "the job said nothing of it")
        if why:
            raise TransientError(f"{node}: Ray holds no place there: {why}")

    def release(self, node: str) -> str:
        """Give a node back; raises `PermanentError` if an agent lives there."""
        ended = self._bare(node)(self._porter(node, "--ask", "leave"), limit=LEAVE_LIMIT)
        if ended.code == 0:
            return "given back to Ray"
        if ended.code == LIVES:
            raise PermanentError(f"{node}: an agent lives there; stop its job first")
        return "nothing"  # nobody answers behind that door, or our programs are not there

    def _join(self, node: str) -> _Batch:
        """Return the batch that the node is in, or is put into."""
        with self._lock:
            batch = self._batches.get(node)
            if batch is None:
                if self._open is None or len(self._open.nodes) >= NODES_MAX:
                    self._open = _Batch(f"holdfast-hold-{secrets.token_hex(8)}", [])
                batch = self._batches[node] = self._open
                batch.nodes.append(node)
            return batch

    def _close(self, batch: _Batch) -> None:
        with self._lock:
            if self._open is batch:
                self._open = None
            batch.closed = True

    def _drop(self, batch: _Batch) -> None:
        """Let the next that wants one of its nodes begin anew."""
        with self._lock:
            for node in batch.nodes:
                if self._batches.get(node) is batch:
                    del self._batches[node]

    def _see_to(self, batch: _Batch, end: float) -> dict[str, str]:
        """Bring a batch to its end; whoever comes later goes on where this one's time was up."""
        if batch.outcome is None:
            try:
                batch.outcome = self._finish(batch, end)
            except PermanentError:
                self._close(batch)
                self._drop(batch)
                raise
            self._drop(batch)
        return batch.outcome

    def _finish(self, batch: _Batch, end: float) -> dict[str, str]:
        if not batch.closed:
            self._pause(GATHER)
            self._close(batch)
        if batch.given_up_at is None:
            self._jobs.submit(batch.id, self._entrypoint(batch.nodes))
            batch.given_up_at = time.monotonic() + JOB_LIMIT
        while True:
            if time.monotonic() >= batch.given_up_at:
                return self._give_up(batch)
            seen = self._jobs.look(batch.id)
            if seen is None:
                return dict.fromkeys(batch.nodes, "Ray forgot the job that should hold it")
            if seen.state.over:
                break
            if time.monotonic() >= end:
                raise TransientError(f"Ray is still at it (job {batch.id} is {seen.state})")
            self._pause(LOOK_EVERY)
        outcome = _outcome(self._jobs.said(batch.id), batch.nodes, seen.message)
        with suppress(HoldfastError):  # it stays in Ray's list, and does no harm there
            self._jobs.forget(batch.id)
        return outcome

    def _give_up(self, batch: _Batch) -> dict[str, str]:
        with suppress(HoldfastError):  # what it does yet is found by the next job
            self._jobs.stop(batch.id)
        why = f"job {batch.id} came to no end within {JOB_LIMIT:g} s"
        return dict.fromkeys(batch.nodes, why)

    def _entrypoint(self, nodes: list[str]) -> str:
        """Return the one line that Ray gives to a shell; quoted here, and nowhere else."""
        about = self._placing
        each = {
            node: {
                "name": self._name(node),
                "known_as": list(about.known_as[node]),
                "resources": dict(about.resources[node]),
                "argv": self._porter(node, "--held", "--linger", f"{about.linger:g}"),
            }
            for node in nodes
        }
        asked = {"limit": about.room_limit, "nodes": each}
        source = Path(raydriver.__file__).read_text(encoding="utf-8")
        return shlex.join([about.driver, "-c", source, json.dumps(asked)])

    def _name(self, node: str) -> str:
        """Return how names of its actors begin: nodes of other folders are other nodes."""
        return f"holdfast-{node}-{hashlib.sha256(bytes(self.home(node))).hexdigest()[:8]}"

    def _porter(self, node: str, *words: str) -> list[str]:
        *program, _ = self._installed.launch
        return [*program, "orchestrator.runtime.porter", "--home", str(self.home(node)), *words]


class RayEngine(LaunchedEngine):
    """Agents whose guards are started by porters that actors of Ray hold."""

    def __init__(self, holds: RayHolds) -> None:
        """Everything but `start` is as on any host that a transport reaches."""
        super().__init__(holds.run, holds.home, holds.launch)
        self._holds = holds

    def start(self, node: str, spec: AgentSpec) -> AgentAddress:
        """Start the agent of an attempt, or find the one that runs; raises as `RayHolds.ensure`."""
        if not self._holds.held(node) and self.find(node, spec.run).agent is None:
            self._holds.ensure(node)
        return super().start(node, spec)


def _outcome(said: str, nodes: list[str], message: str) -> dict[str, str]:
    """Read what the job printed; a job that said nothing held nothing that we know of."""
    lines = [line for line in said.splitlines() if line.startswith(raydriver.MARK + "{")]
    try:
        match json.loads(lines[-1].removeprefix(raydriver.MARK)):
            case {"nodes": dict(found)}:
                return {node: _why(found[node]) for node in nodes if node in found}
            case _:
                pass
    except (IndexError, ValueError, RecursionError):
        pass
    last = said.strip().splitlines()[-1:] or [""]
    return dict.fromkeys(nodes, f"its job failed: {plain(message)} {plain(last[0])}".strip())


def _why(body: object) -> str:
    """Return why a node is not held, "" if it is; raylets that would end early are told."""
    match body:
        case {"held": True, "alone": int(alone) | float(alone)}:
            if alone < ALONE_MIN:
                LOG.warning(
                    "raylets there end %s s after Ray's head is gone, and agents with them; start "
                    "Ray with %s=%g in its environment, or keep its head's state elsewhere",
                    *(f"{max(0, alone):.0f}", raydriver.ALONE, ALONE_WANTED),
                )
            return ""
        case {"error": error}:
            return plain(str(error)) or "no reason given"
        case _:
            return "no reason given"


__all__ = ["Placing", "RayEngine", "RayHolds"]
