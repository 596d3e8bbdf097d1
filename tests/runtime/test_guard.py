from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.runtime import guard
from orchestrator.runtime.place import Place, write_json
from orchestrator.runtime.tether import LINE_MAX, VARIABLE, GuardEnd, Tether

Line = tuple[Tether, GuardEnd, socket.socket]


@pytest.fixture
def line() -> Iterator[Line]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Tether(theirs), GuardEnd(ours), ours


def test_the_guard_hears_the_last_deadline_and_the_reason(line: Line) -> None:
    agent, ear, _ = line
    agent.hold_until(12.5)
    agent.hold_until(99.25)
    agent.say_why("told\nto stop")
    assert ear.listen()
    assert (ear.deadline, ear.why) == (99.25, "told to stop")

    agent.hold_until(None)
    assert ear.listen()
    assert ear.deadline is None


def test_each_side_sees_the_end_of_the_other(line: Line) -> None:
    agent, _, ours = line
    assert not agent.is_cut()
    ours.close()
    assert agent.is_cut()
    agent.say_why("nobody hears this, and it is no error")


def test_a_closed_line_is_the_end_of_the_agent() -> None:
    ours, theirs = socket.socketpair()
    ear = GuardEnd(ours)
    theirs.send(b"why done\n")
    theirs.close()
    assert not ear.listen()
    assert ear.why == "done"
    ours.close()


def test_nonsense_on_the_line_is_ignored_and_costs_no_memory() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ear = GuardEnd(ours)
        theirs.send(b"deadline soon\nhello\n\xff\xfe\n" + b"x" * 5 * LINE_MAX)
        assert ear.listen()
        assert (ear.deadline, ear.why) == (None, "")
        assert len(ear._rest) <= LINE_MAX


def test_without_a_guard_there_is_no_tether(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Tether.from_environment() is None


def test_the_nonce_of_an_agent_that_never_listened_is_empty(tmp_path: Path) -> None:
    place = Place(tmp_path, "job.1")
    assert guard.nonce(place) == ""
    place.make()
    place.agent.write_text("{ broken")
    assert guard.nonce(place) == ""
    write_json(place.agent, {"agent": "abc"})
    assert guard.nonce(place) == "abc"
