"""Which bells there are, and how often each rings. No scheduler here: the simulator uses it too."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from orchestrator.core.policies import Policy


class Bell(StrEnum):
    """What to look at."""

    AGENTS = "agents"
    REGISTERS = "registers"
    INVENTORY = "inventory"
    PROBES = "probes"


CLOSER = 3  #: times as often a node on probation is looked at
BURN_IN_PROBES = 3  #: a burn-in is looked at so often at least, however short it is
SHORTEST = timedelta(milliseconds=200)  #: between two rings; a probe costs processor time


def rhythm(policy: Policy) -> dict[Bell, timedelta]:
    """Say how often each bell rings. `PROBES` rings for the most watched; others are due less."""
    burn_in = max(policy.burn_in / BURN_IN_PROBES, SHORTEST)
    return {
        Bell.AGENTS: policy.look_every,
        Bell.REGISTERS: policy.look_every,
        Bell.INVENTORY: policy.inventory_every,
        Bell.PROBES: min(policy.probe_every / CLOSER, burn_in),
    }
