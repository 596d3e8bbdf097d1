"""The rack of hosts as a test sees it, and its cluster in holdfast.yaml."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.fleet.hypervisor import NETWORK, ask

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Rack:
    """A running hypervisor."""

    folder: Path
    count: int

    @property
    def names(self) -> list[str]:
        return [f"rack-{n:03d}" for n in range(1, self.count + 1)]

    def address(self, name: str) -> str:
        return f"{NETWORK}.{int(name.rpartition('-')[2])}"

    def host_key(self, name: str) -> str:
        """Return a host's public key, as a person would read it on the console."""
        from cryptography.hazmat.primitives import serialization

        private = (self.folder / name / "host_key").read_bytes()
        key = serialization.load_ssh_private_key(private, password=None)
        return (
            key.public_key()
            .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            .decode()
        )

    def do(self, verb: str, name: str, argument: str = "") -> str:
        return ask(self.folder, verb, name, argument)

    def cluster(self, *names: str, power: bool = True) -> dict[str, Any]:
        """Return these hosts as holdfast.yaml says them."""
        board = [sys.executable, "-m", "tests.fleet.hypervisor", "--ask", str(self.folder)]
        ssh: dict[str, Any] = {
            "user": "root",
            "key": str(self.folder / "id"),
            "python": sys.executable,
            "folder": "/mnt/holdfast",
            "connect_limit": "5s",
        }
        if power:
            ssh["power"] = {
                "status": [*board, "status", "{node}"],
                "cycle": [*board, "cycle", "{node}"],
                "limit": "20s",
            }
        return {
            "provider": "ssh",
            "nodes": [
                {
                    "name": name,
                    "address": self.address(name),
                    "host_keys": [self.host_key(name)],
                    "serials": [f"S-{name}"],
                }
                for name in names or self.names
            ],
            "ssh": ssh,
        }


@contextmanager
def rack(folder: Path, count: int) -> Iterator[Rack]:
    """Start a hypervisor with so many hosts; everything of it is gone afterwards."""
    with (folder.parent / "hypervisor.log").open("ab") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.fleet.hypervisor",
             str(folder), str(count)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == b"ready\n", (folder.parent / "hypervisor.log").read_text()[-3000:]
        yield Rack(folder, count)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        subprocess.run(["ip", "link", "del", "br0"], stderr=subprocess.DEVNULL, check=False)


@cache
def own_network() -> bool:
    """Say whether we run in a network of our own, where bridges may be made: it has no cards.

    Asked once, at the begin: later the tests have put cards of theirs there.
    """
    return {name for _, name in socket.if_nameindex()} <= {"lo", "hf0"}
