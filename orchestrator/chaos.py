"""Faults made on purpose on local clusters: what `holdfast chaos` and the demo break.

Each fault does to processes and files what the real one does, and tells nobody: agents, health
checks and the controller must notice by themselves.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.runtime import processes
from orchestrator.runtime.lineage import Commit
from orchestrator.runtime.place import Place, read_json
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from providers import local

#: A kernel line as the NVIDIA driver writes it when a GPU is gone from the PCIe bus.
XID_79 = (
    "[{uptime:12.6f}] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, "
    "GPU has fallen off the bus.\n"
)


class Fault(StrEnum):
    """What can be broken."""

    KILL_RANK = "kill-rank"  #: SIGKILL of one rank
    KILL_NODE = "kill-node"  #: a node loses its power: its agent and all its processes
    HANG_RANK = "hang-rank"  #: SIGSTOP of one rank
    GPU_FAULT = "gpu-fault"  #: a kernel line says XID 79
    CORRUPT_CHECKPOINT = "corrupt-checkpoint"  #: one byte of the newest commit; then kill a rank
    LOSE_CLUSTER = "lose-cluster"  #: every node of a cluster loses its power, for good
    KILL_CONTROLLER = "kill-controller"  #: SIGKILL of the daemon


@dataclass(frozen=True, slots=True)
class Rank:
    """One running rank of a job on this computer."""

    node: str
    home: Path
    run: str  #: JOB.ATTEMPT
    rank: int
    pid: int


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was made."""

    kind: Fault
    target: str | list[str]
    pid: int | None  #: the process that was hit, if it was one
    at: float  #: epoch seconds, just before


@dataclass(frozen=True, slots=True)
class Chaos:
    """Breaks things of one fleet of local clusters."""

    state: Path  #: the fleet's state folder
    dice: random.Random

    def ranks(self, job: str) -> list[Rank]:
        """Find the running ranks of a job, by rank."""
        found = [rank for home in self._homes() for rank in ranks_of(home, job)]
        return sorted(found, key=lambda one: one.rank)

    def inject(self, fault: Fault, job: str, target: str | None = None) -> Injected:
        """Make a fault. `target` names the rank, node or cluster; without it the dice choose.

        Raises `UserError` if there is nothing of the kind to break.
        """
        acts: dict[Fault, Callable[[str, str | None], Injected]] = {
            Fault.KILL_RANK: lambda job, to: self._signal(fault, job, to, signal.SIGKILL),
            Fault.HANG_RANK: lambda job, to: self._signal(fault, job, to, signal.SIGSTOP),
            Fault.KILL_NODE: self._kill_node,
            Fault.GPU_FAULT: self._gpu_fault,
            Fault.CORRUPT_CHECKPOINT: self._corrupt,
            Fault.LOSE_CLUSTER: self._lose_cluster,
            Fault.KILL_CONTROLLER: self._kill_controller,
        }
        try:
            return acts[fault](job, target)
        except ProcessLookupError as error:
            raise UserError(f"the process ended by itself before {fault} could hit it") from error

    def _signal(self, fault: Fault, job: str, target: str | None, number: int) -> Injected:
        rank = self._choose(job, target)
        at = time.time()
        os.kill(rank.pid, number)
        return Injected(fault, f"{rank.node}/rank{rank.rank}", rank.pid, at)

    def _kill_node(self, job: str, target: str | None) -> Injected:
        rank = self._choose(job, target)
        agent = read_json(Place(rank.home, rank.run).agent) or {}
        at = local.cut_power(rank.home)
        return Injected(Fault.KILL_NODE, rank.node, agent.get("pid"), at)

    def _gpu_fault(self, job: str, target: str | None) -> Injected:
        rank = self._choose(job, target)
        line = XID_79.format(uptime=time.clock_gettime(time.CLOCK_BOOTTIME))
        at = time.time()
        with (rank.home / "kernel.log").open("a") as log:
            log.write(line)
        return Injected(Fault.GPU_FAULT, rank.node, None, at)

    def _corrupt(self, job: str, target: str | None) -> Injected:
        rank = self._choose(job, target)
        env = processes.environment(rank.pid) or {}
        url = env.get("HOLDFAST_CHECKPOINTS", "")
        if not url:
            raise UserError(f"{job} has no checkpoints to corrupt")
        register = Register(open_store(env.get("HOLDFAST_REGISTER") or url))
        with _stopped(self.ranks(job)):  # or a commit in between makes the newest the second newest
            head = register.read().head
            if head is None:
                raise UserError(f"{job} has committed nothing yet")
            at = time.time()
            part = flip_a_byte(url, head, self.dice)
            os.kill(rank.pid, signal.SIGKILL)
        return Injected(Fault.CORRUPT_CHECKPOINT, part, rank.pid, at)

    def _lose_cluster(self, job: str, target: str | None) -> Injected:
        if target is not None and target not in {home.parent.name for home in self._homes()}:
            raise UserError(f"there is no local cluster {target}")
        folder = self.state / "clusters" / target if target else self._choose(job).home.parent
        nodes = local.node_folders(folder)
        at = local.lose(folder, nodes)
        return Injected(Fault.LOSE_CLUSTER, list(nodes), None, at)

    def _kill_controller(self, job: str, target: str | None) -> Injected:
        del job, target
        body = read_json(self.state / "daemon.json")
        if body is None:
            raise UserError(f"no daemon has run in {self.state}")
        pid, at = int(body["pid"]), time.time()
        process, started = processes.read(pid), str(body["holder"]).rpartition("/")[2]
        if process is None or process.dead or str(process.started) != started:
            raise UserError(f"the daemon (pid {pid}) does not run")  # whoever has its number now
        processes.send(process, signal.SIGKILL)
        return Injected(Fault.KILL_CONTROLLER, "controller", pid, at)

    def _choose(self, job: str, target: str | None = None) -> Rank:
        ranks = self.ranks(job)
        if target is not None:
            ranks = [one for one in ranks if target in (one.node, str(one.rank))]
        if not ranks:
            what = f"rank or node {target}" if target is not None else "rank"
            raise UserError(f"no running {what} of {job} in {self.state}")
        return self.dice.choice(ranks)

    def _homes(self) -> Sequence[Path]:
        return sorted((self.state / "clusters").glob("*/*/"))


@contextmanager
def _stopped(ranks: Sequence[Rank]) -> Iterator[None]:
    """Keep ranks from doing anything for some milliseconds: too short for anybody to notice."""
    for one in ranks:
        os.kill(one.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in ranks:
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGCONT)


def flip_a_byte(url: str, commit: Commit, dice: random.Random) -> str:
    """Flip one bit in one byte of a part of a commit, as failing storage would; name the part."""
    root = Path(open_store(url).place)
    parts = json.loads((root / commit.manifest).read_bytes())["parts"]
    part = dice.choice(parts)
    path = root / part["key"]
    path.chmod(0o644)
    with path.open("r+b") as file:
        offset = dice.randrange(part["bytes"])
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << dice.randrange(8))]))
    return str(part["key"])


def ranks_of(home: Path, job: str) -> list[Rank]:
    """Find the running ranks of a job on one node of this computer."""
    found = []
    for folder in sorted((home / "attempts").glob(f"{job}.*/")):
        agent = read_json(folder / "agent.json")
        if agent is not None and folder.name.rpartition(".")[0] == job:  # names may hold dots
            marker = Place(home, folder.name).marker
            below = processes.descendants(int(agent["pid"]))
            parents = {agent["pid"]} | {  # ranks are its children, or its warm parent's
                child.pid
                for child in below
                if child.parent == agent["pid"]
                and processes.carries(child.pid, marker, ["HOLDFAST_ROOM"])
            }
            found += [
                Rank(home.name, home, folder.name, int(env["RANK"]), child.pid)
                for child in below
                if child.parent in parents
                and processes.carries(child.pid, marker, ["RANK"])
                and (env := processes.environment(child.pid))
            ]
    return found
