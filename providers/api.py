"""What every provider of machines offers, and what it may be asked.

A provider knows machines, not training: it lists them, and takes those steps of the repair ladder
that it declares in `capabilities`. It is handed a `Run` by the daemon where it needs to run
commands, never imports a transport, never opens a connection to a node itself. What it cannot do
becomes a page with a runbook, decided in the core, never a crash here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Capability(StrEnum):
    """What a provider may be able to do."""

    REBOOT = "reboot"
    REPROVISION = "reprovision"
    REPLACE = "replace"
    PRICE = "price"
    MAINTENANCE = "maintenance"  #: announces maintenance before it happens


class Power(StrEnum):
    """What the provider vouches for."""

    RUNNING = "running"
    STOPPED = "stopped"  #: nothing runs on it


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended."""

    code: int
    out: bytes
    err: bytes


class Run(Protocol):
    """Runs one command on one node; raises `TransientError` if the node cannot be reached."""

    def __call__(self, argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
        """Run `argv` (never a shell) for at most `limit` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class MachineListed:
    """One machine as the provider lists it."""

    node: str  #: our name for its role
    id: str  #: the provider's
    cohort: str  #: hand-over batch
    sku: str
    accelerators: int
    serials: tuple[str, ...]
    power: Power
    boot_id: str
    price_per_hour: float | None  #: US dollars


class Provider(Protocol):
    """Who rents us the machines of one cluster."""

    name: str
    capabilities: frozenset[Capability]

    def machines(self) -> tuple[MachineListed, ...]:
        """List every machine that is ours; raises `TransientError` if the API does not answer."""
        ...

    def reboot(self, node: str) -> str:
        """Restart a machine and return its new boot id.

        Raises `TransientError` if it cannot be done now, `PermanentError` if never.
        """
        ...
