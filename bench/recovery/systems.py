"""How each system starts the workload, and is ended: one class each, with the same two verbs."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from orchestrator.runtime import grants, launch, processes, wire
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Fence, Member
from orchestrator.runtime.register import Register, new_nonce
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.store import open_store

WORKLOAD = Path(__file__).with_name("workload.py")
ROOT = Path(__file__).parents[2]


class System(Protocol):
    """One way to run the workload under supervision."""

    name: str

    def start(self, out: Path, world: int, pause: float) -> None:
        """Begin; ranks note their steps in `out`."""

    def stop(self) -> None:
        """End everything of it."""


class Holdfast:
    """One agent with `world` ranks, warm, as a controller would start it; no controller runs."""

    name = "holdfast"

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._home: Path | None = None

    def start(self, out: Path, world: int, pause: float) -> None:
        """Begin; see `System`."""
        home, vault, key = out / "node", str(out / "vault"), secrets.token_hex(16)
        self._home = home
        register = Register(open_store(vault))
        register.append(lambda seq: Fence(seq, new_nonce(), 1, 1, time.time()), register.read())
        spec = AgentSpec(
            node="n1",
            job="bench",
            attempt=1,
            token=1,
            key=key,
            command=self._command(out, pause),
            workdir=str(out),
            python=sys.executable,
            preload=("torch",),
            ranks_per_node=world,
            checkpoints=vault,
            register=vault,
        )
        said = launch.start(home, spec)
        seat = Member("n1", said["host"], said["port"])
        grant = Grant("bench", 1, 1, 1, (seat,), (), 1, 1, 1000)
        body = {"ask": "grant", "token": 1, "grant": grants.encode(grant)}
        wire.call(seat.host, seat.port, key, body, timeout=10)

    def _command(self, out: Path, pause: float) -> tuple[str, ...]:
        return ("python", str(WORKLOAD), "steady", str(out), str(pause))

    def stop(self) -> None:
        """End everything of it."""
        if self._home is not None:
            processes.kill_home(self._home)


class Torchrun:
    """torchrun as the study tuned it: quick looks, no shared store, a fast exit."""

    name = "torchrun"
    _module = "torch.distributed.run"
    _more: tuple[str, ...] = ()

    def __init__(self, python: str = sys.executable) -> None:
        """Run it under `python`."""
        self._python = python
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, out: Path, world: int, pause: float) -> None:
        """Begin; see `System`."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [self._python, "-m", self._module, f"--nproc-per-node={world}", "--nnodes=1"]
        command += ["--monitor-interval=0.02", "--max-restarts=100", *self._more]
        command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
        command += ["--rdzv-conf=last_call_timeout=1", str(WORKLOAD), "plain", str(out), str(pause)]
        env = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = str(ROOT)
        log = (out / "log").open("ab")
        with log:
            self._child = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=out, env=env, start_new_session=True
            )

    def stop(self) -> None:
        """End everything of it."""
        child, self._child = self._child, None
        if child is None:
            return
        below = processes.descendants(child.pid)
        os.killpg(child.pid, signal.SIGKILL)
        processes.kill(below)
        child.wait()


class InProcess:
    """NVIDIA's in-process restarts with one rank in reserve; needs an environment of its own.

    Its interpreter is named by BENCH_NVRX_PYTHON: see `make bench-recovery`.
    """

    name = "nvrx"

    def __init__(self) -> None:
        """Find its environment; raises `RuntimeError` if none was named."""
        self._python = os.environ.get("BENCH_NVRX_PYTHON", "")
        if not self._python:
            raise RuntimeError("nvrx: run `make bench-recovery`, which installs it")
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, out: Path, world: int, pause: float) -> None:
        """Begin; see `System`."""
        ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                ports.append(probe.getsockname()[1])
        base = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        base |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}
        base |= {"BENCH_STORE": str(ports[1]), "WORLD_SIZE": str(world + 1)}
        store = (
            "import sys, time, torch.distributed as d; "
            "s = d.TCPStore('127.0.0.1', int(sys.argv[1]), None, True, wait_for_workers=False); "
            "time.sleep(9999)"
        )
        commands = [[self._python, "-c", store, str(ports[1])]]
        work = [self._python, "-W", "ignore", str(WORKLOAD), "inprocess", str(out), str(pause)]
        commands += [work] * (world + 1)
        with (out / "log").open("ab") as log:
            for number, command in enumerate(commands):
                rank = str(max(0, number - 1))
                env = {**base, "RANK": rank, "LOCAL_RANK": rank}
                self._children.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, cwd=out, env=env, start_new_session=True
                    )
                )

    def stop(self) -> None:
        """End everything of it."""
        children, self._children = self._children, []
        for child in children:
            below = processes.descendants(child.pid)
            child.kill()
            processes.kill(below)
        for child in children:
            child.wait()


SYSTEMS: dict[str, Callable[[], System]] = {
    "holdfast": Holdfast,
    "torchrun": Torchrun,
    "nvrx": InProcess,
}
