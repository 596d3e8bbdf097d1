"""What a provider says of its machines."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.nodes import Machine, MachineId, NodeName
from orchestrator.core.observations import InventorySeen, MachineSeen, Power, ProviderFailed
from orchestrator.engines.site import Site
from orchestrator.errors import HoldfastError
from providers.api import MachineListed


def list_machines(site: Site, now: datetime) -> InventorySeen | ProviderFailed:
    """Ask the provider of a cluster for its machines."""
    try:
        machines = site.provider.machines()
    except HoldfastError as error:
        return ProviderFailed(site.cluster, now, str(error))
    seen = tuple(_seen(machine) for machine in machines)
    return InventorySeen(site.cluster, site.provider.name, now, seen)


def _seen(listed: MachineListed) -> MachineSeen:
    machine = Machine(
        MachineId(listed.id),
        listed.sku,
        listed.accelerators,
        listed.serials,
        listed.price_per_hour,
    )
    power = Power(listed.power.value)
    return MachineSeen(NodeName(listed.node), listed.cohort, machine, power, listed.boot_id)
