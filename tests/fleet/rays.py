"""A real Ray on one computer: a head and nodes on addresses of the loopback, all of one folder.

Everything that `ray start` leaves behind carries a marker of ours in its environment, and is killed
by it: `ray stop` leaves the GCS alive.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.runtime import processes
from orchestrator.runtime.processes import Process, Target
from tests.fleet.slurm import free_ports

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".fleet" / "ray" / "bin" / "python"  #: made by tools/install_fleet
START_LIMIT = 300.0  #: seconds
OBJECTS = 80_000_000  #: bytes of the object store of each node
LAB = "HOLDFAST_TEST_RAY"
SETTINGS = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",  # as the documentation asks for
    "RAY_worker_niceness": "0",
    "RAY_raylet_start_wait_time_s": "60",  # this machine may be busy
}


def missing() -> str | None:
    """Say what is not installed, or None."""
    return None if PYTHON.exists() else "Ray is not installed (tools/install_fleet)"


@dataclass
class Ray:
    """One cluster: its head is on 127.0.0.2, its other nodes on 127.0.0.3 and so on."""

    folder: Path
    count: int
    cpus: int = 2
    token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        self.port, self.dashboard, self.client = free_ports(3)

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.{n}" for n in range(2, self.count + 2)]

    def start(self) -> None:
        self._ray(
            *("--head", "--port", self.port, "--node-ip-address", self.addresses[0]),
            *("--include-dashboard=true", "--dashboard-host", "127.0.0.1"),
            *("--dashboard-port", self.dashboard, "--ray-client-server-port", self.client),
            *("--temp-dir", self.folder / "t"),
        )
        for address in self.addresses[1:]:  # two at once may choose the same free port
            self.start_node(address)

    def start_node(self, address: str) -> None:
        self._ray("--address", f"{self.addresses[0]}:{self.port}", "--node-ip-address", address)

    def raylet(self, address: str) -> Process:
        """Return the raylet of one node."""
        word = f"--node_ip_address={address}".encode()
        return next(one for one in self._all() if b"/raylet\0" in line(one) and word in line(one))

    def life(self, address: str) -> tuple[int, int]:
        """Return what tells one life of a node's raylet from the next."""
        found = self.raylet(address)
        return found.pid, found.started

    def gcs(self) -> Process:
        return next(one for one in self._all() if b"/gcs_server\0" in line(one))

    def stop(self) -> None:
        processes.sweep(self._target, limit=30.0)

    @property
    def _target(self) -> Target:
        return Target({LAB: str(self.folder)})

    def _all(self) -> tuple[Process, ...]:
        return processes.find(self._target)

    def _ray(self, *words: object) -> None:
        argv = [str(PYTHON.with_name("ray")), "start", *map(str, words)]
        names = ("node-manager", "object-manager", "metrics-export", "runtime-env-agent")
        agents = ("dashboard-agent-listen", "dashboard-agent-grpc")
        for name, port in zip((*names, *agents), free_ports(6), strict=True):
            argv += [f"--{name}-port", str(port)]
        argv += ["--num-cpus", str(self.cpus), "--object-store-memory", str(OBJECTS)]
        argv += ["--include-log-monitor=false", "--disable-usage-stats"]
        env = {
            **os.environ,
            **SETTINGS,
            LAB: str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with (self.folder / "start.log").open("ab") as log:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                timeout=START_LIMIT, check=False,
            )  # fmt: skip
        assert done.returncode == 0, (self.folder / "start.log").read_text()[-2000:]


def line(process: Process) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return b""
