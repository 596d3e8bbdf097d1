"""Bells: APScheduler says when to look at what. It runs no business logic.

A bell only puts its name into the loop's queue; what it means is in `eyes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

from apscheduler.schedulers.background import BackgroundScheduler

from orchestrator.core.policies import Policy


class Bell(StrEnum):
    """What to look at."""

    AGENTS = "agents"
    REGISTERS = "registers"
    INVENTORY = "inventory"
    PROBES = "probes"


BURN_IN_PROBES = 3  #: a burn-in is looked at so often at least, however short it is
SHORTEST = timedelta(milliseconds=200)  #: between two rings; a probe costs processor time


def rhythm(policy: Policy) -> dict[Bell, timedelta]:
    """Say how often each bell rings. `PROBES` rings for nodes in burn-in; others are due less."""
    burn_in = max(policy.burn_in / BURN_IN_PROBES, SHORTEST)
    return {
        Bell.AGENTS: policy.look_every,
        Bell.REGISTERS: policy.look_every,
        Bell.INVENTORY: policy.inventory_every,
        Bell.PROBES: min(policy.probe_every, burn_in),
    }


class Bells:
    """A running set of bells."""

    def __init__(self, policy: Policy, ring: Callable[[Bell], None]) -> None:
        """Prepare the bells; `ring` is called in a thread of the scheduler and must not block."""
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for bell, every in rhythm(policy).items():
            self._scheduler.add_job(
                ring, "interval", args=(bell,), seconds=every.total_seconds(), id=bell.value
            )

    def start(self) -> None:
        """Begin to ring."""
        self._scheduler.start()

    def stop(self) -> None:
        """Ring no more."""
        self._scheduler.shutdown(wait=False)
