"""The worlds that the engine suite turns: one node each, with a real agent on it or none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines.api import Engine
from orchestrator.engines.bundle import bundle
from orchestrator.engines.installed import Installed
from orchestrator.engines.launched import LaunchedEngine
from orchestrator.engines.local import LocalEngine
from orchestrator.runtime import processes
from orchestrator.transports.local import LocalTransport
from orchestrator.transports.ssh import Access, HostAddress, Identity, SshFleet
from orchestrator.transports.ssh.hostkeys import pin
from providers.local import LocalMachines, LocalProvider, cut_power
from tests.transports.sshd import SSHD, Sshd

NODE = "ash-001"


@dataclass
class World:
    """One node that an engine can put agents on; its processes are seen from here."""

    name: str
    make: Callable[[], Engine]  #: the engine, and again after our own restart
    home: Path
    boot_id: str
    unreachable: Callable[[], AbstractContextManager[None]]
    close: Callable[[], object]

    def spec_keys(self) -> dict[str, Any]:
        """Return what every spec of this world says."""
        return {"node": NODE, "boot_id": self.boot_id, "python": sys.executable, "workdir": "/"}


def local(folder: Path) -> World:
    provider = LocalProvider(folder / "ash", LocalMachines((NODE,)))
    boot_id = provider.machines()[0].boot_id
    home = provider.home(NODE)

    def make() -> Engine:
        return LocalEngine(lambda node: LocalTransport(home), lambda node: home)

    @contextmanager
    def unreachable() -> Iterator[None]:
        cut_power(home)
        yield
        provider.reboot(NODE)

    return World("local", make, home, boot_id, unreachable, lambda: processes.kill_home(home))


def ssh(folder: Path) -> World:
    if SSHD is None:
        pytest.skip("no sshd is installed here (openssh-server)")
    server = Sshd(folder / "sshd")
    server.start()
    host = HostAddress(NODE, "127.0.0.1", server.port)
    quick = Access(server.user, Identity(server.key), pause_first=0.05, pause_most=0.2)
    fleets: list[SshFleet] = []
    home = folder / "far" / "nodes" / NODE

    def make() -> Engine:
        fleet = SshFleet({NODE: host}, quick, pin({host.host: [server.host_key]}))
        fleets.append(fleet)
        installed = Installed(bundle(), folder / "far", sys.executable)
        run = installed.wrapped(fleet.run)
        return LaunchedEngine(run, lambda node: home, lambda node: installed.launch)

    @contextmanager
    def unreachable() -> Iterator[None]:
        server.stop()
        yield
        server.start()

    def close() -> None:
        processes.kill_home(home)
        for fleet in fleets:
            fleet.close()
        server.stop()

    return World("ssh", make, home, "", unreachable, close)


WORLDS: dict[str, Callable[[Path], World]] = {"local": local, "ssh": ssh}
