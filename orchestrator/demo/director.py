"""Breaks the disturbed run at moments that the seed chooses, and remembers what was broken.

A fault is injected only when the gang has recovered from the one before: every rank completed two
new steps, and a commit was made since.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from orchestrator.chaos import Chaos, Fault, Injected
from orchestrator.demo.stage import JOB
from orchestrator.demo.troupe import Troupe
from orchestrator.errors import UserError

NEW_STEPS = 2  #: completed by all ranks after a recovery, before the next fault
RESTART_AFTER = 0.3  #: seconds a killed controller stays away
STANDBY_PATIENCE = 20.0  #: seconds a fault that costs a node waits for a standby


@dataclass(frozen=True, slots=True)
class Broken:
    """One fault and the step at which it came."""

    injected: Injected
    at_step: int


@dataclass(slots=True)
class Director:
    """Injects each fault once, in an order and at moments drawn from the seed."""

    troupe: Troupe
    dice: random.Random
    script: list[Fault] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    ready_at: float | None = None
    pause: float = 0.0

    def __post_init__(self) -> None:
        """Draw the order."""
        self.script = draw_script(self.dice)

    @property
    def chaos(self) -> Chaos:
        """What breaks things of this run's fleet."""
        return Chaos(self.troupe.stage.state, self.dice)

    def turn(self) -> Fault | None:
        """Break the next thing if its moment has come."""
        if not self.script or not self._recovered():
            self.ready_at = None
            return None
        now = time.time()
        if self.ready_at is None:
            self.ready_at, self.pause = now, self.dice.uniform(0.0, 0.6)
        if now < self.ready_at + self.pause or self._lacks_standby(now):
            return None
        return self._inject()

    def _inject(self) -> Fault | None:
        fault, at_step = self.script[0], self.troupe.watch.done
        try:
            injected = self.chaos.inject(fault, JOB)
        except UserError:
            return None  # the gang was just re-forming by itself: try again at the next turn
        self.script.pop(0)
        self.broken.append(Broken(injected, at_step))
        self.ready_at = None
        return fault

    def _recovered(self) -> bool:
        watch, since = self.troupe.watch, self._over_at()
        resumed = None if since is None else watch.resumed_at(since)
        if since is None or resumed is None or not self.troupe.controller_acts:
            return False
        needed = 2 if self.script[0] is Fault.CORRUPT_CHECKPOINT else 1
        new_steps = watch.done - watch.done_before(since)
        return new_steps >= NEW_STEPS and self.troupe.commits_since(resumed) >= needed

    def _over_at(self) -> float | None:
        """Return since when the last fault is dealt with; None while it is not.

        Every fault but the controller's death ends in a new generation. One whose ranks go on for
        a while (a GPU fault, until the eviction) must not be hidden by the next.
        """
        if not self.broken:
            return self.troupe.began_at
        last = self.broken[-1].injected
        if last.kind is Fault.KILL_CONTROLLER:
            return last.at
        formed = self.troupe.formed_at()
        return formed if formed is not None and formed > last.at else None

    def _lacks_standby(self, now: float) -> bool:
        costs_a_node = self.script[0] in (Fault.KILL_NODE, Fault.GPU_FAULT)
        waited = now - (self.ready_at or now)
        return costs_a_node and waited < STANDBY_PATIENCE and not self.troupe.has_standby()


def draw_script(dice: random.Random) -> list[Fault]:
    """Order the seven faults: the two that cost a node fall on two sides of `lose-cluster`."""
    costly = (Fault.KILL_NODE, Fault.GPU_FAULT)
    script: list[Fault] = [fault for fault in Fault if fault not in costly]
    dice.shuffle(script)
    first, second = dice.sample(costly, 2)
    middle = script.index(Fault.LOSE_CLUSTER)
    before, after = script[: middle + 1], script[middle + 1 :]
    before.insert(dice.randint(0, middle), first)
    after.insert(dice.randint(0, len(after)), second)
    return before + after
