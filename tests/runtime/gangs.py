"""Real agents on 127.0.0.1 for system tests: nodes in folders, a job without torch, a register."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.errors import HoldfastError
from orchestrator.runtime import grants, launch, processes, reports, wire
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Fence, Lineage, Member
from orchestrator.runtime.register import Register, new_nonce
from orchestrator.runtime.reports import AgentReport, RankReport, RankState, Stage
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.store import open_store
from tests.runtime.trees import wait_for

JOB = textwrap.dedent("""
    import json, os, sys, time
    from pathlib import Path

    work, rank = Path(sys.argv[1]), os.environ["RANK"]
    fifo = os.open(os.environ["HOLDFAST_HEARTBEAT"], os.O_WRONLY | os.O_NONBLOCK)
    step = 0
    while not (work / "finish").exists():
        time.sleep(0.01)
        step += 1
        beat = {"rank": int(rank), "pid": os.getpid(), "at": time.time(), "phase": "step"}
        try:
            os.write(fifo, json.dumps({**beat, "step": step}).encode() + b"\\n")
        except BlockingIOError:
            pass
    (work / f"done.{os.environ['HOLDFAST_GENERATION']}.{rank}").touch()
""")


class Cluster:
    """Some nodes, one attempt of one job, and a controller's hands."""

    def __init__(self, root: Path, *, register: bool = True, **spec: Any) -> None:
        self.root, self.work = root, root / "work"
        self.work.mkdir()
        (self.work / "job.py").write_text(JOB)
        self.key = secrets.token_hex(16)
        self.register_url = str(root / "register") if register else None
        self.spec = spec
        self.seats: dict[str, Member] = {}
        self.notes: dict[str, list[reports.Note]] = {}
        if register:
            self.fence(1)

    def home(self, node: str) -> Path:
        return self.root / "nodes" / node

    def register(self) -> Register:
        assert self.register_url is not None
        return Register(open_store(self.register_url))

    def lineage(self) -> Lineage:
        return self.register().read()

    def fence(self, attempt: int) -> None:
        register = self.register()
        made = register.append(
            lambda seq: Fence(seq, new_nonce(), 1, attempt, time.time()), register.read()
        )
        assert isinstance(made, Fence)

    def start(self, *nodes: str) -> None:
        for node in nodes:
            plain: dict[str, Any] = {
                "command": (sys.executable, str(self.work / "job.py"), str(self.work)),
                "stop_grace": 2.0,
                "python": "/nonexistent/python",  # no store process: its own tests have it
            }
            spec = AgentSpec(
                node=node,
                job="j",
                attempt=1,
                token=1,
                key=self.key,
                workdir=str(self.work),
                register=self.register_url,
                **{**plain, **self.spec},
            )
            said = launch.start(self.home(node), spec)
            self.seats[node] = Member(node, said["host"], said["port"])

    def grant(self, number: int, nodes: str, standbys: str = "", **changes: Any) -> Grant:
        """Make a grant of nodes that are named by letters."""
        grant = Grant(
            job="j",
            attempt=1,
            number=number,
            token=1,
            nodes=tuple(self.seats[node] for node in nodes),
            standbys=tuple(self.seats[node] for node in standbys),
            nodes_min=len(nodes),
            nodes_max=len(nodes),
            generations_max=50,
        )
        return replace(grant, **changes)

    def give(self, grant: Grant, to: str) -> None:
        for node in to:
            said = self.ask(node, {"ask": "grant", "grant": grants.encode(grant)})
            assert said == {"accepted": True}, said

    def ask(self, node: str, body: dict[str, Any], token: int = 1) -> dict[str, Any]:
        seat = self.seats[node]
        return wire.call(seat.host, seat.port, self.key, {"token": token, **body}, timeout=5.0)

    def report(self, node: str) -> AgentReport:
        return reports.decode(self.ask(node, {"ask": "status", "confirm": 0}))

    def running(self, node: str, number: int) -> RankReport | None:
        """Return the node's rank once it has done steps in the generation with this number."""
        try:
            report = self.report(node)
        except HoldfastError:
            return None
        if report.stage is not Stage.RUNNING or report.generation != number or not report.ranks:
            return None
        rank = report.ranks[0]
        return rank if rank.state is RankState.RUNNING and rank.step else None

    def wait_running(self, nodes: str, number: int, limit: float = 20.0) -> list[RankReport]:
        found = []
        for node in nodes:
            rank = wait_for(partial(self.running, node, number), limit=limit, pause=0.02)
            assert rank is not None
            found.append(rank)
        return found

    def wait_stage(self, node: str, stage: Stage, limit: float = 20.0) -> AgentReport:
        return self.wait_report(node, lambda report: report.stage is stage, limit)

    def wait_report(
        self, node: str, holds: Callable[[AgentReport], bool], limit: float = 20.0
    ) -> AgentReport:
        """Return the first report of the node that holds."""

        def look() -> AgentReport | None:
            report = self.report(node)
            return report if holds(report) else None

        found: AgentReport | None = wait_for(look, limit=limit, pause=0.02)
        assert found is not None
        return found

    def kill_node(self, node: str) -> None:
        """Kill guard, agent and ranks of a node at once, as a lost machine would."""
        said = json.loads((self.home(node) / "attempts" / "j.1" / "agent.json").read_text())
        for pid in (said["guard_pid"], said["pid"]):
            os.kill(pid, signal.SIGKILL)
        processes.kill_home(self.home(node))


@contextmanager
def cluster(root: Path, *, register: bool = True, **spec: Any) -> Iterator[Cluster]:
    """Make a cluster and kill whatever is left of it."""
    made = Cluster(root, register=register, **spec)
    try:
        yield made
    finally:
        for node in made.seats:
            processes.kill_home(made.home(node))
