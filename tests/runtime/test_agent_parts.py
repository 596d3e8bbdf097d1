"""The agent's parts, each alone: notes, chores with a limit, connections to peers, check-ups."""

from __future__ import annotations

import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TransientError
from orchestrator.runtime import checkups, chores, peers
from orchestrator.runtime import turns as t
from orchestrator.runtime.checkups import Checkups
from orchestrator.runtime.chores import Bench, Delivery
from orchestrator.runtime.lineage import Because, Cause, Fence, Generation, Lineage, Member
from orchestrator.runtime.listener import Listener
from orchestrator.runtime.notebook import Notebook
from orchestrator.runtime.peers import Mouth
from orchestrator.runtime.register import Register
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.store import open_store
from tests.runtime.trees import wait_for

KEY = "ab" * 16

# ---- notes ---------------------------------------------------------------------------------------


def notebook(count: int) -> Notebook:
    made = Notebook()
    for number in range(count):
        made.write("commit", f"text {number}", {"number": number})
    return made


def test_notes_are_kept_until_they_are_confirmed() -> None:
    notes = notebook(3)
    assert [note.number for note in notes.unconfirmed()] == [1, 2, 3]
    notes.answered(notes.unconfirmed(), 10.0, 1.0)
    notes.confirm(2, None)
    assert [note.number for note in notes.unconfirmed()] == [3]


def test_many_notes_travel_oldest_first_in_several_reports() -> None:
    notes = notebook(450)
    assert [note.number for note in notes.unconfirmed()] == list(range(1, 201))


def test_a_confirmation_is_of_the_first_answer_that_carried_the_note() -> None:
    notes = notebook(1)
    notes.answered(notes.unconfirmed(), 10.0, 1.0)
    notes.answered(notes.unconfirmed(), 20.0, 2.0)  # the same note again: which one was heard?
    assert notes.confirm(1, None) == 1.0
    notes.answered((), 30.0, 3.0)
    assert notes.confirm(1, None) is None  # nothing new was confirmed


def test_a_controller_may_name_the_answer_it_has() -> None:
    notes = notebook(1)
    notes.answered(notes.unconfirmed(), 10.0, 1.0)
    notes.answered(notes.unconfirmed(), 20.0, 2.0)
    assert notes.confirm(1, 20.0) == 2.0


def test_a_number_of_another_life_confirms_nothing() -> None:
    notes = notebook(2)
    assert notes.confirm(99, None) is None
    assert len(notes.unconfirmed()) == 2


# ---- chores --------------------------------------------------------------------------------------


@pytest.fixture
def bell() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def collected(bench: Bench, count: int = 1) -> list[Delivery]:
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(bench.collect())
        return len(found) >= count

    wait_for(enough)
    return found


def test_a_chore_is_done_elsewhere_and_rings(bell: tuple[socket.socket, socket.socket]) -> None:
    bench = Bench("test", bell[1], limit=5.0)
    assert bench.give(t.Tick, t.Unread) is None
    assert bell[0].recv(1) == b"!"
    assert [one.given for one in collected(bench)] == [t.Tick()]


def test_a_failing_chore_says_why(bell: tuple[socket.socket, socket.socket]) -> None:
    def fail() -> t.Given:
        raise TransientError("the store is away")

    bench = Bench("test", bell[1], limit=5.0)
    bench.give(fail, t.Unread)
    assert [one.given for one in collected(bench)] == [t.Unread("the store is away")]


def test_a_chore_that_hangs_costs_its_thread_and_nothing_else(
    bell: tuple[socket.socket, socket.socket],
) -> None:
    release, begun = threading.Event(), []

    def hang() -> t.Given:
        release.wait()
        return t.Read(Lineage(), 1.0)

    def never() -> t.Given:
        begun.append(1)
        return t.Tick()

    bench = Bench("store", bell[1], limit=0.05)
    bench.give(hang, t.Unread)
    bench.give(never, t.Unsure)
    says = "store: no answer within 0.05 s"
    assert [one.given for one in collected(bench, 2)] == [t.Unread(says), t.Unsure(says)]
    refused = bench.give(never, t.Unread)
    assert refused == t.Unread("store: an earlier call has not returned yet")
    release.set()
    late = collected(bench, 2)
    assert [one.late for one in late] == [True, True]
    assert [chores.fed(one) for one in late] == [t.Read(Lineage(), 1.0), None]
    assert not begun  # its limit had passed before its turn came


def generation(seq: int) -> Generation:
    return Generation(
        seq=seq,
        nonce="",
        under=1,
        after=None,
        number=1,
        grant=1,
        members=(),
        store="h:1",
        resume=None,
        why="",
        because=Because(Cause.START),
        at=0.0,
        by="a",
    )


def test_register_chores(tmp_path: Path) -> None:
    register = Register(open_store(str(tmp_path)))
    fence = Fence(1, "f", 1, 1, 1.0)
    register.append(lambda _: fence, Lineage())
    seen = chores.look(register)
    assert isinstance(seen, t.Read)

    made = chores.append(register, generation(2), seen.lineage)
    assert isinstance(made, t.Appended)
    assert made.lineage.latest is not None
    assert made.lineage.latest.nonce
    assert made.lineage.latest.at > 0.0

    late = chores.append(register, generation(2), seen.lineage)
    assert late == t.Overtaken(made.lineage)
    assert chores.fed(Delivery(late, True, 3.0)) == t.Read(made.lineage, 3.0)
    assert chores.fed(Delivery(late, False, 3.0)) == late


# ---- peers ---------------------------------------------------------------------------------------


class Loop:
    """A selectors loop with two agents' sockets in it."""

    def __init__(self, key: str = KEY) -> None:
        self.selector = selectors.DefaultSelector()
        self.heard: list[dict[str, Any]] = []
        self.broken: list[Member] = []
        self.listener = Listener(self.selector, "127.0.0.1", KEY, self.hear)
        self.mouth = Mouth(self.selector, key, self.broken.append)
        self.member = Member("b", "127.0.0.1", self.listener.port)
        self.skew = 0.0

    def hear(self, body: dict[str, Any]) -> dict[str, Any]:
        self.heard.append(body)
        return {}

    def until(self, what: Callable[[], object]) -> None:
        def look() -> object:
            self.step()
            return what()

        wait_for(look, pause=0.0)

    def step(self) -> None:
        ready = self.selector.select(0.01)
        self.listener.now = self.mouth.now = time.monotonic() + self.skew
        for key, mask in ready:
            key.data(mask)
        self.listener.sweep()
        self.mouth.tend()

    def close(self) -> None:
        self.mouth.close()
        self.listener.close()
        self.selector.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_words_arrive_in_order(loop: Loop) -> None:
    for number in range(5):
        loop.mouth.say(loop.member, {"number": number})
    loop.until(lambda: len(loop.heard) == 5)
    assert [body["word"]["number"] for body in loop.heard] == list(range(5))
    assert not loop.broken
    loop.mouth.flush()


def test_a_refused_connection_is_noticed_at_once_and_tried_again(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = Member("c", "127.0.0.1", probe.getsockname()[1])
    loop.mouth.say(nobody, {})
    loop.until(lambda: loop.broken)
    assert loop.broken == [nobody]
    loop.skew = peers.RETRY_AFTER
    loop.until(lambda: len(loop.broken) > 1)


def test_a_peer_with_another_key_counts_as_broken() -> None:
    loop = Loop(key="cd" * 16)
    loop.mouth.say(loop.member, {})
    loop.until(lambda: loop.broken)
    assert not loop.heard
    loop.close()


def test_a_peer_that_never_greets_is_given_up(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        member = Member("c", "127.0.0.1", mute.getsockname()[1])
        loop.mouth.say(member, {})
        loop.step()
        loop.skew = peers.CONNECT_LIMIT + 0.1
        loop.until(lambda: loop.broken)


def test_a_host_that_is_no_address_is_broken_and_no_error(loop: Loop) -> None:
    loop.mouth.say(Member("c", "no address", 1), {})
    loop.until(lambda: loop.broken)


def test_a_connection_nobody_needs_is_given_up(loop: Loop) -> None:
    loop.mouth.say(loop.member, {})
    loop.until(lambda: loop.heard)
    loop.skew = peers.IDLE_MAX + 1.0
    loop.step()
    loop.mouth.say(loop.member, {"again": True})
    loop.until(lambda: len(loop.heard) == 2)


def test_only_the_newest_words_wait_for_a_connection(loop: Loop) -> None:
    for number in range(100):
        loop.mouth.say(loop.member, {"number": number})
    loop.until(lambda: len(loop.heard) >= peers.QUEUE_MAX)
    assert loop.heard[-1]["word"]["number"] == 99


# ---- check-ups -----------------------------------------------------------------------------------


def checked(script: str, limit: float = 20.0) -> tuple[dict[str, Any], ...]:
    spec = AgentSpec(
        node="a",
        job="j",
        attempt=1,
        token=1,
        key=KEY,
        command=("true",),
        workdir="/",
        health=(sys.executable, "-c", script),
        health_every=1000.0,
        health_limit=limit,
        boot_id="boot",
    )
    with selectors.DefaultSelector() as selector:
        made = Checkups(spec, selector)

        def look() -> bool:
            made.tend(time.monotonic())
            for key, mask in selector.select(0.01):
                key.data(mask)
            return bool(made.findings)

        wait_for(look)
        made.close()
    wait_for(lambda: checkups.bury() == 0)
    return tuple(dict(finding) for finding in made.findings)


WHOLE = "print('{\"check\": \"disk\"}'); print('no json'); print('{\"coverage\": {}}')"


def test_a_whole_run_is_passed_on() -> None:
    assert checked(WHOLE) == ({"check": "disk"},)


@pytest.mark.parametrize(
    ("script", "limit", "says"),
    [
        ("import time; time.sleep(60)", 0.3, "no answer within 0.3 s"),
        ('print(\'{"check": "disk"}\')', 20.0, "cut short"),
        ("print('x' * 100_000)", 20.0, "more than 65536 bytes"),
    ],
)
def test_a_run_that_gave_no_whole_answer_is_unknown(script: str, limit: float, says: str) -> None:
    *_, finding = checked(script, limit)
    assert finding["severity"] == "UNKNOWN"
    assert finding["check"] == "healthchecks"
    assert says in finding["evidence"]


def test_checks_are_run_as_often_as_the_controller_says(tmp_path: Path) -> None:
    script = f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); print('{{\"coverage\": {{}}}}')"
    spec = AgentSpec(
        node="a",
        job="j",
        attempt=1,
        token=1,
        key=KEY,
        command=("true",),
        workdir="/",
        health=(sys.executable, "-c", script),
        health_every=3600.0,
        health_limit=60.0,
    )
    with selectors.DefaultSelector() as selector:
        made = Checkups(spec, selector)

        def runs() -> int:
            made.tend(time.monotonic())
            for key, mask in selector.select(0.01):
                key.data(mask)
            return (tmp_path / "runs").exists() and len((tmp_path / "runs").read_text())

        wait_for(lambda: runs() == 1)
        for nonsense in (None, "1", True, 0, -1.0, 1e9, float("nan")):
            made.pace(nonsense)
        wait_for(lambda: runs() == 1)
        made.pace(0.3)
        wait_for(lambda: runs() >= 3, limit=60)
        made.close()
    wait_for(lambda: checkups.bury() == 0)


def test_checks_that_cannot_be_started_are_unknown() -> None:
    spec = AgentSpec(
        node="a",
        job="j",
        attempt=1,
        token=1,
        key=KEY,
        command=("true",),
        workdir="/",
        health=("/nonexistent/checks",),
    )
    with selectors.DefaultSelector() as selector:
        made = Checkups(spec, selector)
        made.tend(time.monotonic())
    (finding,) = made.findings
    assert "cannot be started" in finding["evidence"]


@pytest.mark.parametrize(("code", "starts"), [(0, 1), (3, 3)])
def test_a_listener_is_kept_beside_checks_that_read_it(
    tmp_path: Path, code: int, starts: int
) -> None:
    """With exit code 0 it says that there is nothing to listen to; else it is tried again."""
    script = (
        "import sys\n"
        f"if '--listen' in sys.argv: open({str(tmp_path / 'starts')!r}, 'a').write('x'); "
        f"sys.exit({code})\n"
        "print('{\"coverage\": {}}')"
    )
    spec = AgentSpec(
        node="a",
        job="j",
        attempt=1,
        token=1,
        key=KEY,
        command=("true",),
        workdir="/",
        health=(sys.executable, "-c", script, "--state", str(tmp_path)),
        health_every=3600.0,
        health_limit=60.0,
    )
    with selectors.DefaultSelector() as selector:
        made = Checkups(spec, selector)
        clock = time.monotonic()

        def look() -> int:
            nonlocal clock
            clock += 20.0  # the agent's clock, much faster than the processes
            made.tend(clock)
            time.sleep(0.01)
            return (tmp_path / "starts").exists() and len((tmp_path / "starts").read_text())

        wait_for(lambda: look() >= starts, limit=60)
        for _ in range(20):
            look()
        assert look() == 1 if code == 0 else look() >= starts
        made.close()
    wait_for(lambda: checkups.bury() == 0)
