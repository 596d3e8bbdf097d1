"""The desk and the log: everything is told once, and a storm of alerts hides no page."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.alerts.api import Alert, Kind, Memory, alert
from orchestrator.alerts.desk import Desk
from orchestrator.alerts.log import Log
from orchestrator.core.decisions import Incident
from orchestrator.core.pages import Page, Urgency
from orchestrator.errors import TransientError

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class People:
    """A sink that reaches people; told to, it fails once."""

    name = "people"
    limited = True

    def __init__(self) -> None:
        self.heard: list[Alert] = []
        self.fails = False

    def tell(self, alert: Alert) -> None:
        if self.fails:
            self.fails = False
            raise TransientError("nobody answers", retry_after=3)
        self.heard.append(alert)


def told(
    number: int = 1,
    kind: Kind = Kind.OPENED,
    text: str = "Xid 79",
    *,
    page: Page = Page.HARDWARE_FAULT,
    at: datetime = AT,
) -> Alert:
    return alert(Incident(page, "a-2", at, text, number=number), kind, at=at)


def desk(people: People, log: io.StringIO, memory: Memory, most: int = 20) -> Desk:
    return Desk([Log(log), people], memory, pages_per_hour=most)


def fresh() -> tuple[People, io.StringIO, Memory]:
    return People(), io.StringIO(), {}


def test_an_alert_names_its_runbook_and_how_urgent_it_is() -> None:
    assert told().runbook == "runbooks/hardware-fault.md"
    assert told().urgency is Urgency.ALERT
    assert told(page=Page.NO_SPARE).urgency is Urgency.PAGE


def test_the_log_has_one_line_per_alert_with_everything_in_it() -> None:
    log = io.StringIO()
    incident = Incident(Page.HARDWARE_FAULT, "a-2", AT, "Xid 79\n\x1b[31mgone", number=12)
    Log(log).tell(alert(incident, Kind.OPENED, at=AT, data={"job": "demo"}))
    assert log.getvalue() == (
        "2026-11-23T12:00:00+00:00 ALERT opened incident=12 page=hardware-fault subject=a-2: "
        "Xid 79  [31mgone runbook=runbooks/hardware-fault.md job='demo'\n"
    )


def test_the_same_alert_is_told_once_also_by_a_later_process() -> None:
    people, log, memory = fresh()
    for _ in range(3):
        desk(people, log, memory).tell(told())
    assert len(people.heard) == 1
    assert log.getvalue().count("\n") == 1


def test_another_text_of_the_same_incident_is_news() -> None:
    people, log, memory = fresh()
    one = desk(people, log, memory)
    one.tell(told())
    one.tell(told(kind=Kind.UPDATED, text="a-3 took its place"))
    one.tell(told(kind=Kind.CLOSED, text="over"))
    assert [one.kind for one in people.heard] == ["opened", "updated", "closed"]


def test_a_sink_that_fails_is_asked_again_and_the_others_are_not() -> None:
    people, log, memory = fresh()
    people.fails = True
    one = desk(people, log, memory)
    with pytest.raises(TransientError) as error:
        one.tell(told())
    assert error.value.retry_after == 3
    one.tell(told())
    assert len(people.heard) == 1
    assert log.getvalue().count("\n") == 1


def test_people_hear_of_so_many_incidents_an_hour_and_the_last_one_says_so() -> None:
    people, log, memory = fresh()
    one = desk(people, log, memory, most=3)
    for number in range(1, 6):
        one.tell(told(number))
        one.tell(told(number, Kind.UPDATED, "more"))
    assert [heard.number for heard in people.heard] == [1, 1, 2, 2, 3, 3]
    assert "further ones" in people.heard[4].text
    assert "further ones" not in people.heard[5].text
    assert log.getvalue().count("\n") == 10


def test_after_an_hour_people_hear_again() -> None:
    people, log, memory = fresh()
    one = desk(people, log, memory, most=1)
    one.tell(told(1))
    one.tell(told(2, at=AT + timedelta(minutes=59)))
    one.tell(told(3, at=AT + timedelta(minutes=61)))
    assert [heard.number for heard in people.heard] == [1, 3]


def test_a_storm_of_alerts_never_hides_a_page() -> None:
    people, log, memory = fresh()
    one = desk(people, log, memory, most=2)
    for number in range(1, 10):
        one.tell(told(number))
    one.tell(told(10, page=Page.NO_SPARE))
    assert people.heard[-1].number == 10


def test_the_end_of_an_incident_that_nobody_heard_of_is_only_logged() -> None:
    people, log, memory = fresh()
    desk(people, log, memory).tell(told(kind=Kind.CLOSED))
    assert people.heard == []
    assert "closed" in log.getvalue()
