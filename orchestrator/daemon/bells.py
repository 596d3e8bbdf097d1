"""Bells: APScheduler says when to look at what. It runs no business logic.

A bell only puts its name into the loop's queue; what it means is in `eyes.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from apscheduler.schedulers.background import BackgroundScheduler

from orchestrator.core.policies import Policy
from orchestrator.daemon.rhythm import Bell, rhythm


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
