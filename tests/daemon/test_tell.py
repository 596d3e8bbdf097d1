from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from orchestrator.alerts.api import Alert
from orchestrator.alerts.desk import Desk
from orchestrator.core.decisions import CloseIncident, OpenIncident
from orchestrator.core.pages import Page
from orchestrator.daemon.pools import Pools
from orchestrator.daemon.tell import TELL_LIMIT, TRIES_MAX, Memory, Teller
from orchestrator.errors import PermanentError, TransientError
from tests.daemon.house import HandClock, WilfulLedger

PAGE = next(iter(Page))


class Ear:
    """A sink that reaches people, and fails when it is told to."""

    name = "ear"
    limited = True

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.errors: list[Exception] = []

    def tell(self, alert: Alert) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.heard.append(f"{alert.subject} {alert.kind.value}")


class Stand:
    """A ledger with incidents, and tellers that come and go."""

    def __init__(self) -> None:
        self.ledger, self.clock, self.ear = WilfulLedger(), HandClock(), Ear()
        self.pools, self.left, self.token = Pools(), 20.0, 0
        self.begin()

    def begin(self) -> None:
        """A controller begins, with a new token."""
        self.token = self.ledger.acquire("me", timedelta(days=1), self.clock.now()) or 0
        memory = Memory(self.ledger.alert_states())
        desk = Desk([self.ear], memory, pages_per_hour=20)
        self.teller = Teller(self.ledger, self.pools, desk, memory, lambda: self.left)

    def open(self, subject: str) -> None:
        self.ledger.apply(self.token, OpenIncident(PAGE, subject, "broken"), self.clock.now())

    def close(self, subject: str) -> None:
        self.ledger.apply(self.token, CloseIncident(PAGE, subject, "mended"), self.clock.now())

    def tick(self, times: int = 1) -> list[str]:
        for _ in range(times):
            self.clock.turn(1)
            self.teller(self.token, self.clock.now())
            assert self.pools.wait(10)
        return self.ear.heard


@pytest.fixture
def stand() -> Iterator[Stand]:
    made = Stand()
    yield made
    made.pools.close()


def test_an_opening_and_an_end_are_told_once(stand: Stand) -> None:
    stand.open("n1")
    assert stand.tick(3) == ["n1 opened"]
    stand.close("n1")
    assert stand.tick(3) == ["n1 opened", "n1 closed"]


def test_a_new_controller_repeats_nothing_that_was_told(stand: Stand) -> None:
    stand.open("n1")
    stand.tick(2)
    stand.begin()
    assert stand.tick(2) == ["n1 opened"]
    stand.close("n1")
    stand.tick(2)
    stand.begin()
    assert stand.tick(3) == ["n1 opened", "n1 closed"]


def test_an_end_that_came_while_no_controller_ran_is_told(stand: Stand) -> None:
    stand.open("n1")
    stand.tick(2)
    stand.close("n1")
    stand.begin()
    assert stand.tick(3) == ["n1 opened", "n1 closed"]


def test_an_opening_that_was_not_told_before_the_controller_ended_is_told(stand: Stand) -> None:
    stand.open("n1")
    stand.begin()
    assert stand.tick(2) == ["n1 opened"]


def test_nothing_is_told_while_the_lease_may_end_meanwhile(stand: Stand) -> None:
    stand.left = TELL_LIMIT - 1
    stand.open("n1")
    assert stand.tick(3) == []
    stand.left = 20.0
    assert stand.tick() == ["n1 opened"]


def test_an_end_never_overtakes_its_opening(stand: Stand) -> None:
    stand.ear.errors.append(TransientError("slow down", retry_after=5))
    stand.open("n1")
    assert stand.tick() == []
    stand.close("n1")
    stand.open("n2")
    assert stand.tick() == ["n2 opened"], "others do not wait"
    assert stand.tick(6) == ["n2 opened", "n1 opened", "n1 closed"]


def test_an_alert_is_given_up_after_many_tries_and_its_end_is_told_to_nobody_twice(
    stand: Stand,
) -> None:
    stand.ear.errors = [TransientError("no", retry_after=0) for _ in range(TRIES_MAX)]
    stand.open("n1")
    stand.tick(TRIES_MAX)
    assert stand.tick(3) == []
    stand.open("n2")
    assert stand.tick() == ["n2 opened"]


def test_an_alert_that_can_never_be_told_keeps_no_other_waiting(stand: Stand) -> None:
    stand.ear.errors = [PermanentError("channel not found")]
    stand.open("n1")
    stand.open("n2")
    assert stand.tick(3) == ["n2 opened"]


def test_what_sinks_remember_survives_a_ledger_that_fails_once(stand: Stand) -> None:
    stand.open("n1")
    stand.tick()
    stand.ledger.failing.append("remember_alert")
    with pytest.raises(TransientError):
        stand.tick()
    stand.tick()
    assert stand.ledger.alert_states()[1]["told"]
    stand.begin()
    assert stand.tick(2) == ["n1 opened"]


def test_after_another_daemons_reign_its_telling_is_not_repeated(stand: Stand) -> None:
    stand.tick()
    mine, my_memory = stand.teller, stand.teller.memory
    stand.begin()
    stand.open("n1")
    stand.tick(2)
    stand.begin()
    stand.teller = mine  # the first process reigns again
    assert stand.tick(3) == ["n1 opened"]
    assert my_memory.keys() == {1}
