"""The worlds that the contract suite turns: a provider, and the accidents that happen to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import TransientError
from orchestrator.transports.child import OwnRun
from providers.api import Completed, MachineListed, Power, Provider
from providers.fake import FakeProvider
from providers.local import LocalMachines, LocalProvider, cut_power
from providers.ssh import SshInventory, SshProvider, Switch

NODES = ("ash-001", "ash-002", "ash-003")


@dataclass
class World:
    """One provider under test."""

    provider: Provider
    again: Callable[[], Provider]  #: the provider after our own restart
    down: Callable[[], AbstractContextManager[None]]  #: its API fails meanwhile
    cut_power: Callable[[str], object] | None = None  #: None: nobody there can see power
    cordon_as: Callable[[str, str, str], None] | None = None  #: (who, node, reason)
    knows_boots: bool = True  #: the listing tells boot ids
    close: Callable[[], None] = field(default=lambda: None)


def local(folder: Path) -> World:
    home = folder / "ash"

    def make() -> LocalProvider:
        return LocalProvider(home, LocalMachines(NODES, price_per_hour=2.0))

    @contextmanager
    def down() -> Iterator[None]:
        kept = {node: (home / node / "machine.json").read_bytes() for node in NODES}
        for node in NODES:
            (home / node / "machine.json").write_bytes(b"{")
        yield
        for node in NODES:
            (home / node / "machine.json").write_bytes(kept[node])

    provider = make()
    provider.machines()
    return World(provider, make, down, lambda node: cut_power(home / node))


#: A board controller as ipmitool sees it: one file per machine; a file `broken` makes it fail.
BOARD = """
import pathlib, sys
folder, verb, node = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if (folder / "broken").exists():
    sys.exit("Error: Unable to establish IPMI v2 / RMCP+ session")
power = folder / (node + ".power")
if verb == "cycle":
    power.write_text("on")
print("Chassis Power is", power.read_text() if power.exists() else "on")
"""


def ssh(folder: Path) -> World:
    (folder / "board.py").write_text(BOARD)
    argv = (sys.executable, "-S", "-E", str(folder / "board.py"), str(folder))
    machines = tuple(
        MachineListed(
            node=node,
            id=f"ssh-ash-{node}",
            cohort="first",
            sku="h100",
            accelerators=8,
            serials=(f"S-{node}",),
            power=Power.RUNNING,
            boot_id="",
            price_per_hour=2.0,
        )
        for node in NODES
    )
    inventory = SshInventory(
        machines=machines,
        addresses=dict.fromkeys(NODES, "192.0.2.1"),
        switch=Switch((*argv, "status", "{node}"), (*argv, "cycle", "{node}"), limit=30.0),
    )

    def unreachable(node: str) -> Callable[..., Completed]:
        raise TransientError(f"{node}: no route to host")

    def make() -> SshProvider:
        return SshProvider(inventory, unreachable, OwnRun())

    @contextmanager
    def down() -> Iterator[None]:
        (folder / "broken").touch()
        yield
        (folder / "broken").unlink()

    def off(node: str) -> None:
        (folder / f"{node}.power").write_text("off")

    return World(make(), make, down, off, knows_boots=False)


def fake(folder: Path) -> World:
    del folder
    provider = FakeProvider(NODES)
    return World(provider, lambda: provider, provider.down, provider.cut_power, provider.cordon_as)


WORLDS: dict[str, Callable[[Path], World]] = {"local": local, "ssh": ssh, "fake": fake}

__all__ = ["NODES", "WORLDS", "World"]
