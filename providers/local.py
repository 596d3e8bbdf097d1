"""Machines that are folders on this computer: for trying Holdfast, for the demo and for tests.

A machine's power, serial and boot id stand in `machine.json` of its folder, its kernel log in
`kernel.log`. Taking its power away kills every process that carries its marker, as a real loss of
power would; `reboot` gives it power and a new boot id. A cluster that was lost (`lose`) stays down:
its provider refuses to start anything there, until the file `lost` is removed.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import TransientError, UserError
from orchestrator.runtime.place import write_atomically
from orchestrator.runtime.processes import kill_home
from providers.api import Capability, Limited, MachineListed, Power

LOST = "lost"  #: a file in the cluster's folder: no machine of it can be started


@dataclass(frozen=True, slots=True)
class LocalMachines:
    """What the machines of one local cluster are like."""

    nodes: tuple[str, ...]
    sku: str = "local"
    accelerators: int = 0
    cohort: str = "first"
    price_per_hour: float | None = None


class LocalProvider(Limited):
    """The provider of one local cluster: a folder with one folder per machine."""

    name = "local"
    capabilities = frozenset({Capability.REBOOT, Capability.PRICE})

    def __init__(self, folder: Path, machines: LocalMachines) -> None:
        """Deliver the machines that are not there yet, switched on."""
        self._folder, self._machines = folder, machines

    def home(self, node: str) -> Path:
        """Return the folder of one machine; raises `UserError` if it is not one of ours."""
        if node not in self._machines.nodes:
            raise UserError(f"there is no machine {node} in {self._folder.name}")
        return self._folder / node

    def machines(self) -> tuple[MachineListed, ...]:
        """List every machine of the cluster, delivering those that are new."""
        return tuple(self._listed(node) for node in self._machines.nodes)

    def _listed(self, node: str) -> MachineListed:
        seen = read_machine(self._folder / node) or self._deliver(node)
        return MachineListed(
            node=node,
            id=str(seen["id"]),
            cohort=self._machines.cohort,
            sku=self._machines.sku,
            accelerators=self._machines.accelerators,
            serials=(str(seen["serial"]),),
            power=Power(str(seen["power"])),
            boot_id=str(seen["boot_id"]),
            price_per_hour=self._machines.price_per_hour,
        )

    def _deliver(self, node: str) -> Mapping[str, object]:
        home = self._folder / node
        home.mkdir(parents=True, exist_ok=True)
        (home / "kernel.log").touch()
        machine = {
            "id": f"local-{self._folder.name}-{node}",
            "serial": f"LOCAL-{node.upper()}",
            "power": Power.RUNNING.value,
            "boot_id": secrets.token_hex(8),
        }
        _write(home, machine)
        return machine

    def reboot(self, node: str) -> str:
        """End everything on the machine, empty its kernel log, and start it with a new boot id.

        The list never shows it as stopped in between: a reboot on purpose is no loss of power.
        """
        if (self._folder / LOST).exists():
            raise TransientError(f"cluster {self._folder.name} has no power: {node} stays down")
        home = self.home(node)
        machine = read_machine(home) or self._deliver(node)
        kill_home(home)
        write_atomically(home / "kernel.log", b"")
        boot_id = secrets.token_hex(8)
        _write(home, {**machine, "power": Power.RUNNING.value, "boot_id": boot_id})
        if (self._folder / LOST).exists():  # lost while it started
            cut_power(home)
            raise TransientError(f"cluster {self._folder.name} has no power: {node} went down")
        return boot_id


def read_machine(home: Path) -> dict[str, object] | None:
    """Return what `machine.json` says, or None if the machine was never delivered."""
    try:
        body = json.loads((home / "machine.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise TransientError(f"{home / 'machine.json'} cannot be read: {error}") from error
    if not isinstance(body, dict) or not body.keys() >= {"id", "serial", "power", "boot_id"}:
        raise TransientError(f"{home / 'machine.json'} does not describe a machine")
    return body


def is_running(home: Path) -> bool:
    """Say whether the machine has power."""
    machine = read_machine(home)
    return machine is not None and machine["power"] == Power.RUNNING


def cut_power(*homes: Path) -> float:
    """Take machines' power: nothing of them runs on when this returns.

    Written for all first, so that nothing new is started while the old is killed, and they die
    together. Returns when the killing began, in epoch seconds.
    """
    for home in homes:
        _mark_stopped(home)
    began_at = time.time()
    for home in homes:
        kill_home(home)
    return began_at


def _mark_stopped(home: Path) -> None:
    machine = read_machine(home)
    if machine is None:
        raise UserError(f"no machine was ever delivered at {home}")
    _write(home, {**machine, "power": Power.STOPPED.value})


def lose(folder: Path, nodes: Sequence[str]) -> float:
    """Take the power of a whole cluster for good; returns when, in epoch seconds."""
    (folder / LOST).touch()
    return cut_power(*(folder / node for node in nodes))


def _write(home: Path, machine: Mapping[str, object]) -> None:
    write_atomically(home / "machine.json", json.dumps(machine, sort_keys=True).encode())


def node_folders(folder: Path) -> tuple[str, ...]:
    """Return the machines that were delivered to a cluster's folder."""
    return tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
