"""Sealed lines: what both ends understand, and what hostile bytes cannot do."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime import listener as listeners
from orchestrator.runtime import wire
from orchestrator.runtime.listener import Listener
from orchestrator.runtime.wire import Answerer, Asker, Lines, WireError, call

KEY = "ab" * 16


def introduced(key: str = KEY) -> tuple[Asker, Answerer]:
    asker, answerer = Asker(key), Answerer(KEY)
    assert asker.feed(answerer.greeting()) == []
    return asker, answerer


def test_a_question_and_its_answer() -> None:
    asker, answerer = introduced()
    (request,) = answerer.feed(asker.ask({"ask": "status"}))
    assert request.body == {"ask": "status"}
    assert asker.feed(answerer.reply(request, {"well": True})) == [{"well": True}]
    assert answerer.proven
    assert asker.outstanding == 0


def test_bytes_may_come_one_by_one_and_many_at_once() -> None:
    asker, answerer = introduced()
    sent = asker.ask({"n": 1}) + asker.ask({"n": 2})
    requests = [one for byte in sent for one in answerer.feed(bytes([byte]))]
    assert [request.body["n"] for request in requests] == [1, 2]
    told = b"".join(answerer.reply(request, request.body) for request in requests)
    assert asker.feed(told) == [{"n": 1}, {"n": 2}]


def test_a_stranger_cannot_ask() -> None:
    asker, answerer = introduced(key="cd" * 16)
    with pytest.raises(WireError, match="without the attempt's key"):
        answerer.feed(asker.ask({"ask": "stop"}))
    assert not answerer.proven


def test_nothing_can_be_replayed() -> None:
    asker, answerer = introduced()
    sent = asker.ask({"ask": "stop"})
    answerer.feed(sent)
    with pytest.raises(WireError, match="out of order"):
        answerer.feed(sent)
    with pytest.raises(WireError, match="without the attempt's key"):
        Answerer(KEY).feed(sent)  # another connection, another challenge


def test_an_answer_to_another_question_is_refused() -> None:
    asker, answerer = introduced()
    (first,) = answerer.feed(asker.ask({"n": 1}))
    told = answerer.reply(first, {})
    assert asker.feed(told) == [{}]
    with pytest.raises(WireError, match="a reply to nothing"):
        asker.feed(told)
    asker.ask({"n": 2})
    with pytest.raises(WireError, match="a reply without"):
        asker.feed(told)


@pytest.mark.parametrize(
    ("greeting", "says"),
    [
        (b"SSH-2.0-OpenSSH\n", "not an agent's greeting"),
        (b"holdfast 1 \n", "not an agent's greeting"),
        (b"x" * 500, "more than 128 bytes"),
    ],
)
def test_who_is_no_agent_is_recognised(greeting: bytes, says: str) -> None:
    with pytest.raises(WireError, match=says):
        Asker(KEY).feed(greeting)


def test_nothing_is_asked_before_the_greeting() -> None:
    with pytest.raises(WireError, match="before the greeting"):
        Asker(KEY).ask({})


def test_a_question_has_a_limit() -> None:
    asker, _ = introduced()
    with pytest.raises(WireError, match="too long"):
        asker.ask({"x": "y" * wire.REQUEST_MAX})


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b"1" * 5000, b"[" * 100_000])
def test_a_sealed_body_must_be_an_object(body: bytes) -> None:
    asker, answerer = introduced()
    challenge = answerer.greeting().split()[-1]
    seal = wire._seal(KEY, b"ask", challenge, b"n", b"1", body)
    with pytest.raises(WireError, match="not"):
        answerer.feed(b" ".join((seal, b"n", b"1", body)) + b"\n")
    assert asker.greeted


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_hostile_bytes_are_an_error_or_nothing(chunks: list[bytes]) -> None:
    answerer, asker = Answerer(KEY), Asker(KEY)
    for side in (answerer.feed, asker.feed):
        try:
            for chunk in chunks:
                assert not side(chunk)
        except WireError:
            continue


@given(st.lists(st.binary(max_size=50), max_size=30))
def test_lines_are_what_was_between_newlines(chunks: list[bytes]) -> None:
    lines = Lines(10_000)
    found = [line for chunk in chunks for line in lines.feed(chunk)]
    assert found == b"".join(chunks).split(b"\n")[:-1]


# ---- over sockets --------------------------------------------------------------------------------


class Served:
    """A listener in a loop of its own."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.selector = selectors.DefaultSelector()
        self.listener = Listener(self.selector, "127.0.0.1", KEY, answer)
        self.skew = 0.0
        self.stopping = False
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def loop(self) -> None:
        while not self.stopping:
            ready = self.selector.select(0.01)
            self.listener.now = time.monotonic() + self.skew
            for key, mask in ready:
                key.data(mask)
            self.listener.sweep()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.listener.port), timeout=5.0)

    def call(self, body: dict[str, Any], key: str = KEY, timeout: float = 5.0) -> dict[str, Any]:
        return call("127.0.0.1", self.listener.port, key, body, timeout)


def answer(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("ask") == "later":
        raise TransientError("not now")
    if body.get("ask") == "never":
        raise PermanentError("not like this")
    return {"heard": body, "padding": "x" * int(body.get("size", 0))}


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served(answer)
    yield made
    made.stopping = True
    made.thread.join()
    made.listener.flush()
    made.listener.close()
    made.selector.close()


def test_a_call_gets_its_answer(served: Served) -> None:
    assert served.call({"ask": "x"})["heard"] == {"ask": "x"}


def test_a_large_answer_arrives_whole(served: Served) -> None:
    assert len(served.call({"size": 3_000_000})["padding"]) == 3_000_000


def test_an_error_is_raised_again_on_the_other_side(served: Served) -> None:
    with pytest.raises(TransientError, match="not now"):
        served.call({"ask": "later"})
    with pytest.raises(PermanentError, match="not like this"):
        served.call({"ask": "never"})


def test_a_wrong_key_gets_no_answer(served: Served) -> None:
    with pytest.raises(TransientError, match="hung up"):
        served.call({}, key="00" * 16)


def test_nobody_there_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(TransientError, match="does not answer"):
        call("127.0.0.1", port, KEY, {}, timeout=1.0)


def test_a_call_to_a_mute_listener_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(TransientError, match="timed out"):
            call("127.0.0.1", mute.getsockname()[1], KEY, {}, timeout=0.2)
        assert time.monotonic() - began < 2.0


def test_a_call_to_a_stranger_is_permanent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def greet() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(PermanentError, match="not an agent's greeting"):
            call("127.0.0.1", stranger.getsockname()[1], KEY, {}, timeout=2.0)
        thread.join()


@settings(max_examples=30, deadline=None)
@given(data=st.binary(min_size=1, max_size=3_000))
def test_hostile_bytes_never_stop_the_listener(data: bytes) -> None:
    one = Served(answer)
    try:
        with one.connect() as hostile:
            hostile.sendall(data)
        assert one.call({"ask": "x"})["heard"] == {"ask": "x"}
    finally:
        one.stopping = True
        one.thread.join()
        one.listener.close()
        one.selector.close()


def test_who_does_not_prove_itself_is_dropped_in_time(served: Served) -> None:
    with served.connect() as idle:
        assert idle.recv(100).startswith(b"holdfast 1 ")
        served.skew = listeners.PROVE_WITHIN + 1.0
        assert idle.recv(100) == b""


def test_strangers_cannot_take_all_places_for_long(served: Served) -> None:
    with ExitStack() as places:
        crowd = [places.enter_context(served.connect()) for _ in range(listeners.UNPROVEN_MAX)]
        for one in crowd:
            assert one.recv(100)
        with served.connect() as turned_away:
            assert turned_away.recv(100) == b""
        served.skew = listeners.PROVE_WITHIN + 1.0
        for one in crowd:
            assert one.recv(100) == b""
        assert served.call({})["heard"] == {}


def test_endless_bytes_without_a_newline_end_the_connection(served: Served) -> None:
    endless = b"x" * (wire.REQUEST_MAX * 8)
    with served.connect() as hostile, pytest.raises((BrokenPipeError, ConnectionResetError)):
        hostile.sendall(endless)


def test_an_interface_that_is_not_there_is_transient() -> None:
    with selectors.DefaultSelector() as selector, pytest.raises(TransientError, match="listen"):
        Listener(selector, "192.0.2.1", KEY, answer)
