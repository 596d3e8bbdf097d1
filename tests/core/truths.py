"""A job whose every GPU-second is known: what its account must find out again from facts alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.core.accounts import (
    EPOCH,
    Closed,
    Committed,
    Degraded,
    Done,
    Fact,
    Failed,
    Finished,
    Formed,
    Held,
    Localised,
    Localising,
    Opened,
    Progressed,
    Resumed,
    Started,
    Submitted,
    Us,
    Waiting,
)
from orchestrator.core.timeline import Cause

SECOND = 1_000_000
BEGIN = 1_793_491_200 * SECOND  #: 2026-11-01
GPUS = 8
PRICE = 2.1


def moment(at: Us) -> datetime:
    """Return microseconds since the epoch as a moment."""
    return EPOCH + timedelta(microseconds=at)


@dataclass
class Truth:
    """Plays one job to its end, keeps the true books, and says what observers would see."""

    dice: random.Random
    days: float = 20
    nodes: int = 32
    mtbf_hours: float = 10
    step: Us = 20 * SECOND
    stall: Us = 400_000
    facts: list[Fact] = field(default_factory=list)
    amounts: Counter[Cause] = field(default_factory=Counter)
    now: Us = BEGIN
    standby: int = GPUS
    attempt: int = 0
    generation: int = 0
    number: int = 0  #: of the last step
    durable: int = 0
    unsettled: list[tuple[int, Counter[Cause]]] = field(default_factory=list)

    def play(self) -> Truth:
        """Play the whole life; returns itself."""
        end = BEGIN + int(self.days * 86_400 * SECOND)
        self.tell(Submitted(moment(self.now)))
        self.hold(0)
        self.begin_attempt()
        while self.now < end:
            self.run(min(end, self.now + self.span(self.mtbf_hours * 3600)), end)
        self.tell(Done(moment(self.now), self.attempt, self.generation))
        self.spend(Cause.IDLE, 8 * SECOND, gang=self.nodes * GPUS)
        self.hold(0)
        self.tell(Closed(moment(self.now), self.attempt))
        self.tell(Finished(moment(self.now)))
        for _, spent in self.unsettled:
            self.amounts += spent
        return self

    def tell(self, *facts: Fact) -> None:
        self.facts.extend(facts)

    def span(self, mean_s: float) -> Us:
        return int(self.dice.expovariate(1 / mean_s) * SECOND) + 1

    def hold(self, nodes: int) -> None:
        """Change what is held, and tell it."""
        self.held = nodes * GPUS + (self.standby if nodes else 0)
        aside = self.standby if nodes else 0
        self.tell(Held(moment(self.now), self.held, aside, PRICE))

    def spend(
        self, cause: Cause, lasted: Us, gang: int, into: Counter[Cause] | None = None
    ) -> None:
        """Let time pass: the gang's GPUs go to a cause, the others stand by or idle."""
        self.now += lasted
        spare = Cause.IDLE if cause is Cause.IDLE else Cause.SPARE
        aside = min(self.standby, self.held - gang)
        (self.amounts if into is None else into)[cause] += gang * lasted
        self.amounts[spare] += aside * lasted
        self.amounts[Cause.IDLE] += (self.held - gang - aside) * lasted

    def begin_attempt(self) -> None:
        self.spend(Cause.OUTAGE, self.span(600), gang=0)
        self.attempt += 1
        self.generation = 0
        self.tell(Opened(moment(self.now), self.attempt))
        self.hold(self.nodes)
        self.spend(Cause.RESTART, self.span(20), gang=self.nodes * GPUS)

    def run(self, failing: Us, end: Us) -> None:
        """Form a generation, train until it fails (or all is done), and clear up."""
        self.form()
        gang, left = self.nodes * GPUS, max(0, failing - self.now)
        slow = self.now + int(left * self.dice.random()) if self.dice.random() < 0.2 else end
        told = ended = self.now
        stalled = 0
        speed = 1.0
        while self.now < failing:
            if self.now >= slow and speed == 1.0:
                speed = 0.7
                self.tell(Degraded(moment(self.now), self.attempt, self.generation, speed))
            spent: Counter[Cause] = Counter()
            lasted = min(int(self.step / speed), failing - self.now)
            whole = lasted == int(self.step / speed)
            good = int(lasted * speed)
            self.spend(Cause.PRODUCTIVE, good, gang, spent)
            self.spend(Cause.DEGRADED, lasted - good, gang, spent)
            self.number += whole
            ended = self.now
            if whole and self.number % 15 == 0 and self.now + self.stall < failing:
                self.spend(Cause.CHECKPOINT_STALL, self.stall, gang, spent)
                stalled += self.stall
                ended = self.now
                self.durable = self.number
                who = (self.attempt, self.generation)
                self.tell(Committed(moment(self.now), *who, self.number))
            self.unsettled.append((self.number + (not whole), spent))
            if whole and ended - told > 60 * SECOND:
                self.progress(ended, stalled)
                told = ended
        if self.now < end:
            self.progress(ended, stalled)
            self.fail(gang)

    def progress(self, at: Us, stalled: Us) -> None:
        took = timedelta(microseconds=stalled)
        who = (self.attempt, self.generation)
        self.tell(Progressed(moment(at), *who, self.number, took))

    def form(self) -> None:
        """Form, start and load; what was not durable is lost."""
        gang = self.nodes * GPUS
        self.generation += 1
        if self.durable >= 30 and self.dice.random() < 0.1:
            self.durable -= 15  # it did not verify: a step down
        for number, spent in self.unsettled:
            if number > self.durable:
                self.amounts[Cause.LOST_WORK] += sum(spent.values())
            else:
                self.amounts += spent
        self.unsettled.clear()
        self.number = self.durable
        who = (self.attempt, self.generation)
        self.tell(Formed(moment(self.now), *who, gang, self.durable))
        self.spend(Cause.RESTART, self.span(5), gang)
        self.tell(Started(moment(self.now), *who))
        self.spend(Cause.RESTART, self.span(25), gang)
        self.tell(Resumed(moment(self.now), *who, self.durable))

    def fail(self, gang: int) -> None:
        who, happened = (self.attempt, self.generation), moment(self.now)
        self.spend(Cause.DETECT, self.span(30), gang)
        self.tell(Failed(happened, *who, moment(self.now)))
        rest = self.held - self.standby
        if self.dice.random() < 0.3:
            self.tell(Localising(moment(self.now), *who))
            self.spend(Cause.LOCALISE, self.span(60), rest)
            self.tell(Localised(moment(self.now), *who))
        kind = self.dice.random()
        if kind < 0.1:  # the attempt is given up
            self.spend(Cause.RESTART, self.span(20), rest)
            self.hold(0)
            self.tell(Closed(moment(self.now), self.attempt))
            self.begin_attempt()
            return
        if kind < 0.3:  # a node is lost, and no spare is there for a while
            self.hold(self.nodes - 1)
            self.tell(Waiting(moment(self.now)))
            self.spend(Cause.OUTAGE, self.span(1_800), self.held - self.standby)
            self.tell(Waiting(moment(self.now), lacks=False))
            self.hold(self.nodes)
        self.spend(Cause.RESTART, self.span(15), self.held - self.standby)
