"""Sweep many real sshd by SSH, with our transport and with others' clients, in the same rounds.

    python -m bench.sweep --hosts 64,128 --rounds 5 --peers .bench/ssh/bin -o json

Needs root and a network of its own: `make bench-ssh`. Every client gets the same command line (ours
bounds a command over there as well, so theirs does), hosts at once, pinned host keys and limit; the
first sweep opens the connections ("cold"), the others find them open ("warm"). Then one host is cut
off and one is stopped, and the sweep is made again: how long do the others wait for them?
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.sweep.hosts import Sweep
from orchestrator.errors import HoldfastError
from orchestrator.transports.ssh import Access, HostAddress, Identity, SshFleet
from orchestrator.transports.ssh.hostkeys import pin
from orchestrator.transports.ssh.quoting import command_line, limited
from tests.fleet.rack import Rack, rack

LIMIT = 20.0  #: seconds for one host
WIDTH = 32
#: what a light passive sweep reads of a host
COMMAND = ["cat", "/proc/loadavg", "/proc/meminfo", "/proc/uptime"]
PEERS = {
    "asyncssh": ("python", "bench.sweep.asyncssh_client"),
    "parallel-ssh": ("python", "bench.sweep.parallel_ssh_client"),
    "clush": ("clush", "bench.sweep.program_client"),
    "ansible": ("ansible", "bench.sweep.program_client"),
}


class Client:
    """A client's process."""

    def __init__(self, argv: list[str]) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # peers tell whole stacks of a host that does not answer
            text=True,
        )

    def sweep(self) -> dict[str, Any]:
        """Let it sweep once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("sweep\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.communicate()


def told(lan: Rack, folder: Path) -> Sweep:
    """Say what to sweep."""
    return Sweep(
        hosts={name: lan.address(name) for name in lan.names},
        host_keys={name: lan.host_key(name) for name in lan.names},
        user="root",
        key=str(lan.folder / "id"),
        known_hosts=str(folder / "known_hosts"),
        command=COMMAND,
        line=command_line(limited(COMMAND, LIMIT)),
        limit=LIMIT,
        width=WIDTH,
    )


def commands(path: Path, peers: Path | None) -> dict[str, list[str]]:
    """Return how each client is started; a peer that is not installed is left out, and named."""
    found = {"holdfast": [sys.executable, "-m", "bench.sweep.holdfast_client", str(path)]}
    for name, (program, module) in PEERS.items():
        if peers is None or not (peers / program).exists():
            print(f"bench.sweep: {name} is not installed; left out", file=sys.stderr)
            continue
        words = [str(path), str(peers / program)] if program == name else [str(path)]
        found[name] = [str(peers / "python"), "-m", module, *words]
    return found


def measure(count: int, rounds: int, peers: Path | None) -> dict[str, Any]:
    """Return the figures of all clients for so many hosts."""
    with tempfile.TemporaryDirectory(prefix="holdfast-sweep-") as name, ExitStack() as stack:
        folder = Path(name)
        lan = stack.enter_context(rack(folder / "rack", count))
        sweep, path = told(lan, folder), folder / "sweep.json"
        sweep.write(path)
        clients = {who: Client(argv) for who, argv in commands(path, peers).items()}
        for client in clients.values():
            stack.callback(client.close)
        cold = {who: client.sweep() for who, client in clients.items()}
        warm: dict[str, list[dict[str, Any]]] = {who: [] for who in clients}
        for _ in range(rounds):
            for who, client in clients.items():
                warm[who].append(client.sweep())
        cut, hung = lan.names[0], lan.names[1]
        lan.do("cut", cut)
        lan.do("hang", hung)
        others = [one for one in lan.names if one not in (cut, hung)]
        disturbed = {who: client.sweep() for who, client in clients.items()}
        lan.do("thaw", hung)
        lan.do("heal", cut)
        return {
            "hosts": count,
            "rounds": rounds,
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "clients": {
                who: figures(cold[who], warm[who], disturbed[who], others) for who in clients
            },
            "partition_noticed_s": round(noticed(lan, sweep), 1),
        }


def figures(
    cold: dict[str, Any], warm: list[dict[str, Any]], disturbed: dict[str, Any], others: list[str]
) -> dict[str, Any]:
    """Summarise one client's sweeps."""
    count = len(others) + 2
    last = [max(one["answered"].values(), default=0.0) for one in warm]
    here = [disturbed["answered"][name] for name in others if name in disturbed["answered"]]
    return {
        "cold_hosts_per_s": round(len(cold["answered"]) / cold["seconds"], 1),
        "warm_hosts_per_s": round(
            statistics.median(len(one["answered"]) / one["seconds"] for one in warm), 1
        ),
        "warm_cpu_ms_per_host": round(
            statistics.median(one["cpu"] / count * 1000 for one in warm), 2
        ),
        "unanswered": sum(count - len(one["answered"]) for one in warm),
        "last_answer_s": round(statistics.median(last), 3),
        "last_answer_disturbed_s": round(max(here, default=0.0), 3),
        "others_unanswered_disturbed": len(others) - len(here),
    }


def noticed(lan: Rack, sweep: Sweep) -> float:
    """Cut a host off with a connection open; return the seconds until a command says so."""
    name = lan.names[-1]
    host = HostAddress(name, sweep.hosts[name], 22)
    keys = pin({host.host: [sweep.host_keys[name]]})
    fleet = SshFleet({name: host}, Access(sweep.user, Identity(Path(sweep.key))), keys)
    try:
        fleet.run(name)(["true"], limit=LIMIT)
        lan.do("cut", name)
        began = time.monotonic()
        try:
            fleet.run(name)(["sleep", "600"], limit=600)
        except HoldfastError:
            return time.monotonic() - began
        raise AssertionError("a host that was cut off has answered")
    finally:
        lan.do("heal", name)
        fleet.close()


def table(found: dict[str, Any]) -> str:
    """Return one table as Markdown."""
    ours = found["clients"]["holdfast"]["warm_hosts_per_s"]
    lines = [
        f"{found['hosts']} hosts, {found['rounds']} warm rounds, {found['cores']} cores, "
        f"load {found['load']}; a silent partition was noticed after "
        f"{found['partition_noticed_s']} s",
        "",
        "| client | cold hosts/s | warm hosts/s | ours is faster by | CPU ms/host |"
        " last answer s | with one cut, one stopped |",
        "|---|---|---|---|---|---|---|",
    ]
    for who, one in found["clients"].items():
        ratio = ours / one["warm_hosts_per_s"] if one["warm_hosts_per_s"] else float("inf")
        lines.append(
            f"| {who} | {one['cold_hosts_per_s']} | {one['warm_hosts_per_s']} | {ratio:.2f} |"
            f" {one['warm_cpu_ms_per_host']} | {one['last_answer_s']} |"
            f" {one['last_answer_disturbed_s']} ({one['others_unanswered_disturbed']} missing) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure each number of hosts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default="64,128")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, help="bin folder of the peers' environment")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    wanted = parser.parse_args()
    for count in map(int, wanted.hosts.split(",")):
        found = measure(count, wanted.rounds, wanted.peers)
        print(json.dumps(found) if wanted.output == "json" else table(found) + "\n", flush=True)


if __name__ == "__main__":
    main()
