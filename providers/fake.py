"""Machines that exist in memory only: every capability, and every kind of trouble, on request.

For tests and for trying policies. It keeps the same contract as the real ones (one suite runs on
all of them), so what a test learns from it holds elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.errors import TransientError, UserError
from providers.api import OWNER, Capability, Limited, MachineListed, Notice, Power

ALL = frozenset(Capability)


class FakeProvider(Limited):
    """One cluster of imagined machines."""

    name = "fake"

    def __init__(
        self,
        nodes: Iterable[str],
        *,
        can: frozenset[Capability] = ALL,
        sku: str = "fake",
        accelerators: int = 0,
        price_per_hour: float | None = 1.0,
    ) -> None:
        """Deliver the machines, switched on; `can` limits what this provider offers."""
        self.capabilities = can
        self._lock = threading.Lock()
        self._down: str | None = None
        self._notices: list[Notice] = []
        self._boots = 0
        self._machines = {
            node: MachineListed(
                node=node,
                id=f"fake-{node}",
                cohort="first",
                sku=sku,
                accelerators=accelerators,
                serials=(f"FAKE-{node.upper()}",),
                power=Power.RUNNING,
                boot_id=self._boot(),
                price_per_hour=price_per_hour if Capability.PRICE in can else None,
            )
            for node in nodes
        }

    # --- the provider

    def machines(self) -> tuple[MachineListed, ...]:
        """List every machine."""
        with self._answering():
            return tuple(self._machines.values())

    def reboot(self, node: str) -> str:
        """Restart a machine at once."""
        return self._boot_again(Capability.REBOOT, node)

    def reprovision(self, node: str) -> str:
        """Install a machine anew, at once."""
        return self._boot_again(Capability.REPROVISION, node)

    def replace(self, node: str) -> str:
        """Put another machine behind the name."""
        with self._answering(), self._offered(Capability.REPLACE, node) as machine:
            number = int(machine.id.rpartition("#")[2]) + 1 if "#" in machine.id else 2
            fresh = f"fake-{node}#{number}"
            self._machines[node] = replace(
                machine,
                id=fresh,
                serials=(f"{machine.serials[0].partition('#')[0]}#{number}",),
                power=Power.RUNNING,
                boot_id=self._boot(),
            )
            return fresh

    def notices(self) -> tuple[Notice, ...]:
        """Return what was announced, the earliest first."""
        with self._answering():
            return tuple(sorted(self._notices, key=lambda one: (one.begins_at, one.node)))

    def cordon(self, node: str, reason: str) -> None:
        """Keep other work off a node."""
        self.cordon_as(OWNER, node, reason)

    def uncordon(self, node: str) -> bool:
        """Lift a cordon of ours."""
        with self._answering(), self._offered(Capability.CORDON, node) as machine:
            if machine.cordon and not machine.cordoned_by.startswith(OWNER):
                return False
            self._machines[node] = replace(machine, cordon="", cordoned_by="")
            return True

    # --- what happens to it

    def cordon_as(self, who: str, node: str, reason: str) -> None:
        """Cordon a node in somebody's name."""
        with self._answering(), self._offered(Capability.CORDON, node) as machine:
            if not machine.cordon:
                said = "".join(one if one.isprintable() else " " for one in reason)
                self._machines[node] = replace(
                    machine, cordon=said.strip() or "no reason given", cordoned_by=who
                )

    def cut_power(self, node: str) -> None:
        """Switch a machine off, as an accident would."""
        with self._lock:
            self._machines[node] = replace(self._machines[node], power=Power.STOPPED)

    def announce(self, notice: Notice) -> None:
        """Announce maintenance."""
        with self._lock:
            self._notices.append(notice)

    @contextmanager
    def down(self, error: str = "503 Service Unavailable") -> Iterator[None]:
        """Let the API fail meanwhile."""
        self._down = error
        try:
            yield
        finally:
            self._down = None

    # --- inside

    def _boot(self) -> str:
        self._boots += 1
        return f"boot-{self._boots}"

    def _boot_again(self, step: Capability, node: str) -> str:
        with self._answering(), self._offered(step, node) as machine:
            boot_id = self._boot()
            self._machines[node] = replace(machine, power=Power.RUNNING, boot_id=boot_id)
            return boot_id

    @contextmanager
    def _answering(self) -> Iterator[None]:
        if self._down is not None:
            raise TransientError(f"the provider's API does not answer: {self._down}")
        with self._lock:
            yield

    @contextmanager
    def _offered(self, step: Capability, node: str) -> Iterator[MachineListed]:
        if step not in self.capabilities:
            self._cannot(step.value, node)
        if node not in self._machines:
            raise UserError(f"there is no machine {node!r:.80}")
        yield self._machines[node]
