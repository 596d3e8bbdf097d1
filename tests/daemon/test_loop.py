from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.decisions import StartAgent
from orchestrator.core.nodes import JobName, NodeName
from orchestrator.core.observations import Ordered
from orchestrator.daemon.loop import Backoff, Came
from orchestrator.daemon.rhythm import Bell
from orchestrator.errors import PermanentError, TransientError
from orchestrator.ledger.api import Settlement, StaleTokenError
from tests.core.world import QUICK
from tests.daemon.house import BEGIN, TTL, House, WilfulLedger

SECOND = timedelta(seconds=1)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.pools.close()


def open_ones(house: House) -> list[Settlement]:
    return [one for one in house.ledger.settlements() if one.settled_at is None]


def test_a_job_gets_its_agent_and_every_intent_its_outcome(house: House) -> None:
    house.reign()
    house.submit()
    house.live(12)
    assert house.engine.started
    assert not open_ones(house)


def test_a_tick_records_then_settles_then_decides_then_acts(house: House) -> None:
    house.reign()
    house.live(6)
    house.submit()
    house.ledger.calls.clear()
    house.live(1)
    first = [house.ledger.calls.index(name) for name in ("record", "apply", "intend")]
    assert first == sorted(first)
    house.ledger.calls.clear()
    house.loop.tick(house.token, [Came("somebody's", True, "done"), *house.messages()])
    assert house.ledger.calls[:2] == ["record", "settle"]


@pytest.mark.parametrize(
    "error", [TransientError("busy"), PermanentError("never"), ZeroDivisionError("a bug")]
)
def test_whatever_an_act_raises_becomes_its_outcome(house: House, error: Exception) -> None:
    house.engine.fails = error
    house.reign()
    house.submit()
    house.live(12)
    failed = [one for one in house.ledger.settlements() if one.ok is False]
    assert any(str(error) in one.text for one in failed)
    assert not open_ones(house)


@pytest.mark.parametrize("call", ["record", "settle", "snapshot"])
def test_no_outcome_is_lost_when_the_ledger_fails_for_a_moment(house: House, call: str) -> None:
    house.reign()
    house.live(6)
    house.submit()
    house.live(0)
    assert open_ones(house)
    messages = house.messages()
    assert any(isinstance(one, Came) for one in messages)
    house.ledger.failing.append(call)
    with pytest.raises(TransientError):
        house.loop.tick(house.token, [*messages, Came("x", True, "", ())])
    mine = [one.intent.key for one in open_ones(house)]
    house.loop.tick(house.token, [])
    assert not [one for one in open_ones(house) if one.intent.key in mine]


def test_one_decision_that_is_unlawful_does_not_stop_the_others(house: House) -> None:
    house.reign()
    house.live(1)
    house.ledger.refused = min(house.ledger.snapshot(house.clock.now(), ()).nodes)
    house.submit()
    house.live(12)
    assert house.engine.started
    assert house.ledger.calls.count("apply") < 200  # and it is not tried without end


def test_a_failed_act_is_held_back_longer_each_time(house: House) -> None:
    house.engine.fails = TransientError("busy")
    house.policy = replace(QUICK, look_every=timedelta(milliseconds=1))
    house.move_in()
    house.reign()
    house.submit()
    house.live(8)
    tried = len(house.engine.started)
    for _ in range(50):  # no time passes
        house.loop.tick(house.token, house.messages())
    assert len(house.engine.started) <= tried + 1


def test_the_leftovers_of_a_killed_controller_are_settled_once_and_not_repeated_blindly(
    house: House,
) -> None:
    house.reign()
    house.live(6)
    wish = StartAgent(NodeName("ash-1"), JobName("train"), 1, 0, "seat")
    now = house.clock.now()
    assert house.ledger.intend(house.token, wish, now, now + SECOND) is not None
    house.move_in()  # killed here: nobody carried it out, or nobody knows
    house.clock.turn(1)
    house.reign()
    (left,) = [one for one in house.ledger.settlements() if one.intent.decision == wish]
    assert left.ok is False
    assert "looked at again" in left.text
    assert house.engine.started == []
    house.clock.turn(5)
    house.reign()
    house.live(2)
    assert left in house.ledger.settlements(), "settled once"
    assert house.engine.started == [], "no job wants it"


def test_the_first_look_is_a_look_and_tells_that_a_controller_acts(house: House) -> None:
    house.reign()
    assert house.fleet().beliefs.nodes.keys() == {"ash-1", "ash-2"}
    (hello,) = house.ledger.story("controller")
    assert hello.kind == "daemon-started"
    assert "token 1" in hello.text


def test_an_outcome_of_an_earlier_reign_settles_nothing_of_this_one(house: House) -> None:
    house.reign()
    house.ledger.failing.append("settle")
    with pytest.raises(TransientError):
        house.loop.tick(house.token, [Came("StartAgent:ash-1:train:1:0", True, "done")])
    house.reign()
    wish = StartAgent(NodeName("ash-1"), JobName("train"), 1, 0, "seat")
    house.ledger.intend(house.token, wish, house.clock.now(), house.clock.now())
    house.loop.tick(house.token, [])
    assert len(open_ones(house)) == 1


def test_who_lost_the_lease_stops_acting(house: House) -> None:
    house.reign()
    house.live(6)
    house.submit()
    house.clock.turn(21)
    assert house.ledger.acquire("other", TTL, house.clock.now()) is not None
    before = (list(house.engine.started), len(house.ledger.settlements()))
    with pytest.raises(StaleTokenError):
        house.loop.tick(house.token, [Bell.AGENTS])
    assert (house.engine.started, len(house.ledger.settlements())) == before


def test_a_register_that_cannot_be_opened_is_silent_and_ends_nobodys_look(house: House) -> None:
    house.reign()
    house.submit(register="s3://bucket/x")
    house.live(3)
    belief = house.fleet().beliefs.registers[JobName("train")]
    assert "s3://bucket/x" in belief.error
    house.move_in()
    house.reign()  # also a fresh controller can begin


class LateLedger(WilfulLedger):
    """Shows an order only after one with a higher number, as concurrent transactions do."""

    hidden: int | None = 1

    def orders_open(self) -> tuple[Ordered, ...]:
        return tuple(one for one in super().orders_open() if one.number != self.hidden)


def test_an_order_that_becomes_visible_late_is_carried_out(tmp_path: Path) -> None:
    ledger = LateLedger()
    house = House(tmp_path, ledger=ledger)
    house.reign()
    house.submit()
    house.submit()
    house.live(1)
    assert ledger.order_answer(2) is not None
    ledger.hidden = None
    house.live(1)
    assert ledger.order_answer(1) is not None
    house.pools.close()


def test_each_tick_tells_with_its_token(tmp_path: Path) -> None:
    told: list[int] = []
    house = House(tmp_path, tell=lambda token, now: told.append(token))
    house.reign()
    house.live(1)
    assert set(told) == {house.token}
    house.pools.close()


def test_backoff_doubles_up_to_its_most_and_forgets_with_success() -> None:
    backoff, now = Backoff(), BEGIN
    pauses = []
    for _ in range(7):
        backoff.failed("key", now)
        until = backoff.next(now)
        assert until is not None
        assert backoff.holds("key", until - SECOND / 1000)
        assert not backoff.holds("key", until)
        assert not backoff.holds("other", now)
        pauses.append((until - now).total_seconds())
        now = until
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10]
    backoff.succeeded("key")
    backoff.failed("key", now)
    assert backoff.next(now) == now + SECOND / 2
