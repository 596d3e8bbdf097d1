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
from typing import NoReturn, Protocol

from orchestrator.errors import PermanentError


class Capability(StrEnum):
    """What a provider may be able to do."""

    RESET = "reset"  #: the accelerators, without a reboot
    REBOOT = "reboot"
    REPROVISION = "reprovision"
    REPLACE = "replace"
    PRICE = "price"
    MAINTENANCE = "maintenance"  #: announces maintenance before it happens
    CORDON = "cordon"  #: keeps other users' work off a node, and says who did it and why


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
    boot_id: str  #: "" where only the node itself can tell
    price_per_hour: float | None  #: US dollars
    cordon: str = ""  #: why the provider keeps work off it, "" if it does not
    cordoned_by: str = ""  #: who said so; ours begin with `OWNER`


@dataclass(frozen=True, slots=True)
class Notice:
    """Maintenance that the provider announced."""

    node: str
    begins_at: float  #: epoch seconds
    text: str


OWNER = "holdfast"  #: on every cordon of ours; automation removes only its own


class Provider(Protocol):
    """Who rents us the machines of one cluster."""

    name: str
    capabilities: frozenset[Capability]

    def machines(self) -> tuple[MachineListed, ...]:
        """List every machine that is ours; raises `TransientError` if the API does not answer."""
        ...

    def reset(self, node: str) -> str:
        """Reset every accelerator of a machine; return its boot id (the same) or "".

        This and the next three are the repair ladder: each is asked for only where `capabilities`
        names it, only for machines on which nothing of ours runs, and may be asked for again.
        Raises as `reboot` does.
        """
        ...

    def reboot(self, node: str) -> str:
        """Restart a machine; return its new boot id, or "" if it will be seen when it is back.

        Raises `TransientError` if it cannot be done now, `PermanentError` if never, `UserError`
        if the node is not one of ours.
        """
        ...

    def reprovision(self, node: str) -> str:
        """Install a machine anew; return and raise as `reboot` does."""
        ...

    def replace(self, node: str) -> str:
        """Swap the machine behind a name for another one; return the new machine's id."""
        ...

    def notices(self) -> tuple[Notice, ...]:
        """Return the maintenance that was announced and has not ended."""
        ...

    def cordon(self, node: str, reason: str) -> None:
        """Keep other work off a node. One that is cordoned already keeps its owner and reason."""
        ...

    def uncordon(self, node: str) -> bool:
        """Lift a cordon of ours; False, and nothing is changed, if it is somebody else's."""
        ...


class Limited:
    """The answers of a provider that can only list: each refusal says what to do instead."""

    name: str

    def _cannot(self, what: str, node: str) -> NoReturn:
        raise PermanentError(
            f"provider {self.name} cannot {what} {node}; see `holdfast runbook show repair-limit`"
        )

    def reset(self, node: str) -> str:
        """Refuse."""
        self._cannot("reset", node)

    def reboot(self, node: str) -> str:
        """Refuse."""
        self._cannot("reboot", node)

    def reprovision(self, node: str) -> str:
        """Refuse."""
        self._cannot("reprovision", node)

    def replace(self, node: str) -> str:
        """Refuse."""
        self._cannot("replace", node)

    def notices(self) -> tuple[Notice, ...]:
        """Return nothing: this provider announces no maintenance."""
        return ()

    def cordon(self, node: str, reason: str) -> None:
        """Refuse."""
        del reason
        self._cannot("cordon", node)

    def uncordon(self, node: str) -> bool:
        """Refuse."""
        self._cannot("uncordon", node)
