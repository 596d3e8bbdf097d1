"""The Slack sink against a server that checks what Slack would."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.alerts.api import Alert, Kind, Memory, alert
from orchestrator.alerts.slack import Slack, _escaped
from orchestrator.core.decisions import Incident
from orchestrator.core.pages import Page
from orchestrator.errors import PermanentError, TransientError
from tests.alerts.slack_server import CHANNEL, TOKEN, FakeSlack, slack_server

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[FakeSlack]:
    with slack_server() as one:
        yield one


def sink(server: FakeSlack, memory: Memory, **changed: Any) -> Slack:
    token = changed.pop("token", TOKEN)
    channel = changed.pop("channel", CHANNEL)
    return Slack(channel, lambda: token, memory, base_url=server.url, **{"timeout": 5, **changed})


def told(kind: Kind, text: str = "Xid 79 on gpu5", number: int = 12, **data: Any) -> Alert:
    incident = Incident(Page.HARDWARE_FAULT, "a-2", AT, text, number=number)
    return alert(incident, kind, at=AT, data=data)


def test_an_incident_is_one_thread_from_its_beginning_to_its_end(server: FakeSlack) -> None:
    slack = sink(server, {})
    slack.tell(told(Kind.OPENED, node="a-2", job="demo"))
    slack.tell(told(Kind.UPDATED, "a-3 took its place"))
    slack.tell(told(Kind.CLOSED, "a-2 passed burn-in"))
    (first,) = server.firsts()
    replies = [one["text"] for one in server.thread(first["ts"])]
    assert replies == ["↳ a-3 took its place", "✅ a-2 passed burn-in"]
    assert first["text"] == "✅ hardware-fault · a-2: Xid 79 on gpu5"
    assert "a-2 passed burn-in" in first["blocks"][0]["text"]["text"]
    assert "holdfast incident show 12" in first["blocks"][-1]["elements"][0]["text"]
    assert "runbooks/hardware-fault.md" in first["blocks"][-1]["elements"][0]["text"]


def test_telling_twice_shows_it_once_also_by_another_process(server: FakeSlack) -> None:
    memory: Memory = {}
    for _ in range(2):
        for kind, text in ((Kind.OPENED, "a"), (Kind.UPDATED, "b"), (Kind.UPDATED, "c")):
            sink(server, memory).tell(told(kind, text))
    assert len(server.firsts()) == 1
    assert len(server.messages) == 3


def test_each_incident_has_a_thread_of_its_own(server: FakeSlack) -> None:
    slack = sink(server, {})
    for number in (1, 2):
        slack.tell(told(Kind.OPENED, number=number))
        slack.tell(told(Kind.UPDATED, "more", number=number))
    assert [len(server.thread(one["ts"])) for one in server.firsts()] == [1, 1]


def test_an_update_of_what_nobody_heard_of_opens_the_thread(server: FakeSlack) -> None:
    sink(server, {}).tell(told(Kind.UPDATED, "still there"))
    (first,) = server.firsts()
    assert "still there" in first["text"]


def test_the_end_of_what_nobody_heard_of_is_no_news(server: FakeSlack) -> None:
    sink(server, {}).tell(told(Kind.CLOSED))
    assert server.calls == []


def test_an_answer_that_never_came_is_looked_for_before_posting_again(server: FakeSlack) -> None:
    slack = sink(server, {})
    for kind, text in ((Kind.OPENED, "a"), (Kind.UPDATED, "b")):
        server.lose_answers = 1
        with pytest.raises(TransientError):
            slack.tell(told(kind, text))
        slack.tell(told(kind, text))
    assert len(server.messages) == 2
    assert server.calls.count("chat.postMessage") == 2


def test_without_the_scope_to_look_it_posts_again(server: FakeSlack) -> None:
    server.scopes.discard("channels:history")
    server.lose_answers = 1
    slack = sink(server, {})
    with pytest.raises(TransientError):
        slack.tell(told(Kind.OPENED))
    slack.tell(told(Kind.OPENED))
    assert len(server.messages) == 2  # seen twice is better than never


def test_the_end_is_finished_where_it_broke_off(server: FakeSlack) -> None:
    slack = sink(server, {})
    slack.tell(told(Kind.OPENED))
    server.failures = [None, (200, {}, {"ok": False, "error": "fatal_error"})]
    with pytest.raises(TransientError, match=r"chat\.update"):
        slack.tell(told(Kind.CLOSED, "over"))
    slack.tell(told(Kind.CLOSED, "over"))
    (first,) = server.firsts()
    assert first["text"].startswith("✅")
    assert [one["text"] for one in server.thread(first["ts"])] == ["✅ over"]


def test_slack_asks_for_patience_and_gets_it(server: FakeSlack) -> None:
    limited = {"ok": False, "error": "ratelimited"}
    server.failures = [(429, {"Retry-After": "17"}, limited), (200, {}, limited)]
    slack = sink(server, {})
    with pytest.raises(TransientError) as first:
        slack.tell(told(Kind.OPENED))
    assert first.value.retry_after == 17
    with pytest.raises(TransientError) as second:
        slack.tell(told(Kind.OPENED))
    assert second.value.retry_after == 30


@pytest.mark.parametrize(
    "failure",
    [
        (500, {}, {"ok": False, "error": "internal_error"}),
        (503, {}, b"<html>upstream"),
        (200, {}, {"ok": False, "error": "service_unavailable"}),
    ],
)
def test_what_may_pass_is_transient(server: FakeSlack, failure: Any) -> None:
    server.failures = [failure]
    with pytest.raises(TransientError):
        sink(server, {}).tell(told(Kind.OPENED))


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"token": "xoxb-wrong-secret"}, "invalid_auth"),
        ({"channel": "C000"}, "channel_not_found"),
    ],
)
def test_what_nobody_can_wait_out_is_permanent(
    server: FakeSlack, changed: dict[str, Any], error: str
) -> None:
    with pytest.raises(PermanentError, match=error):
        sink(server, {}, **changed).tell(told(Kind.OPENED))


def test_a_server_that_is_not_there_is_transient() -> None:
    with slack_server() as gone:
        slack = sink(gone, {})
    with pytest.raises(TransientError, match="could not be reached"):
        slack.tell(told(Kind.OPENED))


def test_the_token_is_in_no_text(server: FakeSlack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    memory: Memory = {}
    slack = sink(server, memory)
    slack.tell(told(Kind.OPENED))
    server.failures = [(500, {}, {"ok": False, "error": "internal_error"})]
    with pytest.raises(TransientError) as error:
        slack.tell(told(Kind.UPDATED, "x"))
    said = f"{slack!r} {error.value!r} {error.value.__cause__!r} {memory!r} {caplog.text}"
    assert TOKEN not in said


def test_texts_of_nodes_cannot_mention_everybody(server: FakeSlack) -> None:
    sink(server, {}).tell(told(Kind.OPENED, "<!channel> & <http://evil|click>", node="<@U1>"))
    (first,) = server.firsts()
    assert "<" not in first["text"] + str(first["blocks"])
    assert "&lt;!channel&gt; &amp;" in first["text"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(min_size=1, max_size=200), times=st.integers(1, 400), number=st.integers(1))
def test_no_text_is_refused_for_its_size(
    server: FakeSlack, text: str, times: int, number: int
) -> None:
    memory: Memory = {}
    data = {f"name{one}": text * times for one in range(20)}
    sink(server, memory).tell(told(Kind.OPENED, text * times, number, **data))
    sink(server, memory).tell(told(Kind.CLOSED, text * times, number))
    assert memory[number]["slack"]["sent"]


@given(st.text(), st.integers(1, 50))
def test_a_cut_never_splits_an_entity(text: str, most: int) -> None:
    cut = _escaped(text, most)
    assert len(cut) <= most
    whole = cut.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert not set(whole) & {"&", "<", ">"}
