"""Machines that we only have addresses of: a list in holdfast.yaml, reached by SSH.

Nobody vouches for their power, unless `power.status` names a command of the controller's computer
that can see it (ipmitool, a PDU's client): only its `off` proves that nothing runs on a machine. A
machine is rebooted by `power.cycle` where there is one, else by a command on the machine itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from orchestrator.errors import HoldfastError, PermanentError, TransientError, UserError
from providers.api import Capability, Limited, MachineListed, Power, Run

LOOKS_AT_ONCE = 16  #: power states asked for at the same time
REBOOT_LIMIT = 8.0  #: seconds; a machine that goes down often takes the answer with it


@dataclass(frozen=True, slots=True)
class Switch:
    """Out-of-band power; words may hold {node} and {address}."""

    status: tuple[str, ...] = ()
    cycle: tuple[str, ...] = ()
    limit: float = 8.0  #: seconds


@dataclass(frozen=True, slots=True)
class SshInventory:
    """The machines of one cluster and how they are rebooted."""

    machines: tuple[MachineListed, ...]  #: power and boot id are filled in
    addresses: Mapping[str, str]
    reboot: tuple[str, ...] = ()  #: argv, run on the machine
    switch: Switch = Switch()


class SshProvider(Limited):
    """The provider of a static inventory."""

    name = "ssh"

    def __init__(self, inventory: SshInventory, run: Callable[[str], Run], own: Run) -> None:
        """`run` gives the transport of a node, `own` runs commands of the controller's computer."""
        self._inventory, self._run, self._own = inventory, run, own
        self.capabilities = capabilities(inventory)

    def machines(self) -> tuple[MachineListed, ...]:
        """List the inventory; raises `TransientError` if no power state at all can be seen."""
        machines = self._inventory.machines
        if not self._inventory.switch.status or not machines:
            return machines
        with ThreadPoolExecutor(min(LOOKS_AT_ONCE, len(machines))) as pool:
            seen = list(pool.map(self._power, machines))
        errors = [one for one in seen if isinstance(one, HoldfastError)]
        if len(errors) == len(seen):
            raise TransientError(f"no power state can be seen: {errors[0]}")
        return tuple(  # one that cannot be seen is not off: that would be a proof
            machine if isinstance(power, HoldfastError) else replace(machine, power=power)
            for machine, power in zip(machines, seen, strict=True)
        )

    def reboot(self, node: str) -> str:
        """Restart a machine; its new boot is seen when it answers again."""
        address = self._inventory.addresses.get(node)
        if address is None:
            raise UserError(f"there is no machine {node} in this inventory")
        if self._inventory.switch.cycle:
            self._switch(self._inventory.switch.cycle, node, address)
        elif self._inventory.reboot:
            self._ask(node)
        else:
            self._cannot("reboot", node)
        return ""

    def _ask(self, node: str) -> None:
        ended = self._run(node)(self._inventory.reboot, limit=REBOOT_LIMIT)
        if ended.code != 0:
            raise PermanentError(f"{node}: {self._inventory.reboot[0]}: {_words(ended.err)}")

    def _power(self, machine: MachineListed) -> Power | HoldfastError:
        address = self._inventory.addresses[machine.node]
        try:
            return _spoken(self._switch(self._inventory.switch.status, machine.node, address))
        except HoldfastError as error:
            return error

    def _switch(self, argv: Sequence[str], node: str, address: str) -> str:
        words = [word.replace("{node}", node).replace("{address}", address) for word in argv]
        ended = self._own(words, limit=self._inventory.switch.limit)
        if ended.code != 0:
            raise TransientError(f"{node}: {words[0]}: {_words(ended.err or ended.out)}")
        return ended.out.decode(errors="replace")


def capabilities(inventory: SshInventory) -> frozenset[Capability]:
    """Return what can be done with these machines."""
    can = set()
    if inventory.reboot or inventory.switch.cycle:
        can.add(Capability.REBOOT)
    if any(machine.price_per_hour is not None for machine in inventory.machines):
        can.add(Capability.PRICE)
    return frozenset(can)


def _spoken(text: str) -> Power:
    """Read "Chassis Power is off"; raises `TransientError` for anything but on and off."""
    word = (text.split() or [""])[-1].strip(".").lower()
    match word:
        case "on":
            return Power.RUNNING
        case "off":
            return Power.STOPPED
        case _:
            raise TransientError(f"neither on nor off: {text.strip()[:100]!r}")


def _words(text: bytes) -> str:
    said = text.decode(errors="replace").strip()[-200:]
    return "".join(one if one.isprintable() else " " for one in said) or "no reason given"
