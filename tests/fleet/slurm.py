"""A real Slurm on one computer: munged, slurmctld, and a slurmd per node, of one folder.

Debian's build lets one host be many nodes (NodeHostname, Port). No file of the system is touched.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "squeue", "sbatch", "srun", "scontrol")
UP_LIMIT = 60.0  #: seconds

CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdParameters=config_overrides
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/run/ctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=1
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=2
UnkillableStepTimeout=10
InactiveLimit=0
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
TreeWidth=64
NodeName={prefix}[1-{count}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""  # noqa: E501


def missing() -> str | None:
    """Say which program is not installed, or None."""
    lacks = [name for name in PROGRAMS if _program(name) is None]
    return f"Slurm is not installed here ({', '.join(lacks)})" if lacks else None


@dataclass
class Slurm:
    """One cluster in one folder; its nodes are PREFIX1, PREFIX2, ..."""

    folder: Path
    count: int
    prefix: str = "fir-"
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    @property
    def nodes(self) -> list[str]:
        return [f"{self.prefix}{n}" for n in range(1, self.count + 1)]

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def silent(self) -> Path:
        """A file in which the controller's port is one where nobody listens."""
        found = self.folder / "silent.conf"
        if not found.exists():
            lines = [
                f"SlurmctldPort={free_ports(1)[0]}" if line.startswith("SlurmctldPort=") else line
                for line in self.conf.read_text().splitlines()
            ]
            found.write_text("\n".join([*lines, "MessageTimeout=1", "TCPTimeout=1", ""]))
        return found

    def start(self) -> None:
        for name in ("run", "state", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for parent in (self.folder, *self.folder.parents):  # munge wants to be reached by all
            if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o055 & ~0o022)
        (self.folder / "munge").chmod(0o700)
        (self.folder / "munge/key").write_bytes(secrets.token_bytes(1024))
        (self.folder / "munge/key").chmod(0o600)
        ports = free_ports(self.count + 1)
        while ports[-1] - ports[1] != self.count - 1:  # slurmd wants a range
            ports = free_ports(self.count + 1)
        self.conf.write_text(
            CONF.format(
                host=socket.gethostname().partition(".")[0],
                port=ports[0],
                user=os.environ.get("USER") or "root",
                folder=self.folder,
                prefix=self.prefix,
                count=self.count,
                first=ports[1],
                last=ports[-1],
            )
        )
        munge = self.folder / "munge"
        self._spawn(
            "munged", "munged", "--foreground", "--force", f"--key-file={munge}/key",
            f"--socket={self.folder}/run/munge.sock", f"--pid-file={munge}/pid",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        self._until("munge answers", lambda: (self.folder / "run/munge.sock").exists())
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self._until("all nodes are idle", self._all_idle)

    def start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))

    def start_node(self, node: str) -> None:
        self._spawn(node, "slurmd", "-D", "-N", node, "-f", str(self.conf))

    def kill(self, name: str) -> None:
        """Kill slurmctld, or the slurmd of a node: its jobs go on."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def do(self, *argv: str) -> str:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "SLURM_CONF": str(self.conf)},
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def stop(self) -> None:
        subprocess.run(
            ["scancel", "--me"],
            capture_output=True,
            timeout=30,
            check=False,
            env={**os.environ, "SLURM_CONF": str(self.conf)},
        )
        end = time.monotonic() + 15
        while time.monotonic() < end and self.do("squeue", "--noheader").strip():
            time.sleep(0.1)
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _all_idle(self) -> bool:
        nodes = json.loads(self.do("sinfo", "--json"))["nodes"]
        return len(nodes) == self.count and {node["state"] for node in nodes} == {"idle"}

    def _until(self, what: str, holds: object) -> None:
        assert callable(holds)
        end = time.monotonic() + UP_LIMIT
        while True:
            try:
                if holds():
                    return
            except (AssertionError, ValueError):
                pass
            logs = [*self.folder.glob("*.log"), *self.folder.glob("munge/log")]
            tails = "\n".join(f"{one.name}: {one.read_text()[-600:]}" for one in logs)
            assert time.monotonic() < end, f"not within {UP_LIMIT} s: {what}\n{tails}"
            time.sleep(0.1)

    def _spawn(self, name: str, program: str, *argv: str) -> None:
        with (self.folder / "stderr.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(_program(program)), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "SLURM_CONF": str(self.conf)},
            )


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, in order; most often they follow each other."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        first: int = probe.getsockname()[1]
    found = []
    for port in range(first, min(first + 200, 65_000)):
        try:
            with socket.create_server(("127.0.0.1", port)):
                found.append(port)
        except OSError:
            found = found[:1]
        if len(found) == count:
            return found
    return free_ports(count)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
