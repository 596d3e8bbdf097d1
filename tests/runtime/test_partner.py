"""Copies of snapshots in a partner's memory: only what was verified is sent, kept and resumed."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import PermanentError
from orchestrator.runtime import memory, wire
from orchestrator.runtime.courier import Aside, Receiver, Stream, hand_over
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.ladder import Choice, Image, Offer, choose
from orchestrator.runtime.lineage import Member
from orchestrator.runtime.memory import Head, Segment, TornError, segment_bytes
from orchestrator.runtime.memorykeeper import MemoryKeeper
from orchestrator.runtime.partner import candidates
from orchestrator.runtime.place import Place
from orchestrator.runtime.throttle import Throttle
from tests.runtime.steadygangs import SteadyGang, steady_gang, undisturbed
from tests.runtime.trees import marked, wait_for

BODY = 3_000_000  #: three pieces, the last one shorter
A, B, C, D = (Member(name, "h", 1) for name in "abcd")


def grant(nodes: tuple[Member, ...], standbys: tuple[Member, ...]) -> Grant:
    return Grant("j", 1, 1, 1, nodes, standbys, 1, 2, 10)


def test_the_first_member_has_copies_kept_by_a_node_that_is_no_member() -> None:
    mine = grant((A, B), (C, D))
    assert candidates(A, (A, B), mine) == (C, D)
    assert candidates(B, (A, B), mine) == ()  # the same state: one copy outside is enough
    assert candidates(C, (A, B), mine) == ()
    assert candidates(A, (A, C), mine) == (D,)  # C was taken in
    assert candidates(A, (A, B), grant((A, B), ())) == ()
    assert candidates(A, (), mine) == ()
    assert candidates(A, (A,), None) == ()


def test_the_rungs_come_in_their_order() -> None:
    best, older = Image(2, 9), Image(2, 8)
    offers = {
        0: Offer("a", live=best, memory=(best,), partner=(best,)),
        1: Offer("b", memory=(best,), partner=(best,)),
        2: Offer("c", memory=(older,), partner=(best,)),
        3: Offer("d", partner=(older,)),
    }
    choice = choose(offers, 1, 5)
    assert [choice.source(rank) for rank in range(4)] == ["live", "memory", "partner", "peer"]
    assert choice.sources == (0, 1, 2)
    only = choose({0: Offer("c", partner=(older,))}, 1, 5)
    assert only.source(0) == "partner"
    assert choose({0: Offer("c", partner=(older,))}, 3, 5).source(0) == "vault"  # poison
    assert choose({0: Offer("c", partner=(older,))}, 1, 9).source(0) == "vault"  # a newer commit
    assert Choice(None).source(0) == "vault"


def test_what_a_node_needs_itself_comes_before_copies_for_others() -> None:
    keeper = MemoryKeeper(1_000)
    assert keeper.reserve(memory.PARTNER, 600) is None
    keeper.aside = 300
    assert keeper.reserve(memory.OWN, 500) is None  # and the copies are gone
    assert keeper.held(memory.PARTNER) is None
    assert (keeper.bytes, keeper.aside) == (500, 0)
    assert "exceed what is left" in str(keeper.reserve(memory.PARTNER, 501))
    assert "exceed the node's bound" in str(keeper.reserve(memory.PARTNER, 1_001))
    keeper.close()
    assert keeper.bytes == 0


# ---- one copy, over a real connection ------------------------------------------------------------


def a_segment(size: int = BODY) -> Segment:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, segment_bytes(size))
    return Segment(descriptor)


def snapshot(
    segment: Segment, step: int, generation: int = 1, run: str = "j.1"
) -> tuple[int, Head]:
    slot = segment.spare_slot()
    segment.erase(slot)
    segment.body(slot)[:BODY] = bytes([step % 256]) * BODY
    name, digest = memory.hasher()
    digest.update(segment.body(slot)[:BODY])
    head = Head(run, generation, step, 10, BODY, name, digest.hexdigest(), {"step": step})
    segment.publish(slot, head)
    return slot, head


class Harbour:
    """A receiver, and a sender's hands."""

    def __init__(self, bytes_max: int = 100_000_000) -> None:
        self.key = secrets.token_hex(16)
        self.keeper = MemoryKeeper(bytes_max)
        self.receiver = Receiver("127.0.0.1", self.key, "j.1", self._room)
        self.receiver.start()

    def _room(self, size: int) -> int:
        refused = self.keeper.reserve(memory.PARTNER, size)
        if refused is not None:
            raise PermanentError(refused)
        held = self.keeper.held(memory.PARTNER)
        assert held is not None
        return os.dup(held.descriptor)

    def send(self, head: Head, body: memoryview, key: str | None = None) -> Any:
        address = ("127.0.0.1", self.receiver.port)
        with socket.create_connection(address, timeout=20) as connection:
            return hand_over(Stream(connection), key or self.key, head, body, Throttle(1e12))

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Return generation and step of each copy that is there and whole."""
        segment = self.receiver.segment
        if segment is None:
            return []
        return sorted(
            (head.generation, head.step) for head, _ in map(segment.read, segment.heads())
        )


@pytest.fixture
def harbour() -> Iterator[Harbour]:
    made = Harbour()
    yield made
    made.keeper.close()


def test_copies_arrive_and_only_newer_ones_replace_them(harbour: Harbour) -> None:
    source, aside = a_segment(), Aside()

    def deliver(step: int, generation: int = 1) -> Any:
        slot, head = snapshot(source, step, generation)
        return harbour.send(head, aside.copy(source, slot, head))

    assert deliver(7) == {"kept": True}
    assert deliver(8) == {"kept": True}
    assert deliver(9) == {"kept": True}
    assert harbour.steps == [(1, 8), (1, 9)]
    assert deliver(9) == {"has": True}
    assert "step 9 of generation 1 is here" in deliver(8)["refused"]
    assert deliver(3, generation=2) == {"kept": True}  # after a step down
    assert harbour.steps == [(1, 9), (2, 3)]
    assert "refused" in deliver(30, generation=1)  # who is cut off does not come over it


def test_what_is_damaged_at_the_source_is_not_sent() -> None:
    source = a_segment()
    slot, head = snapshot(source, 7)
    source.body(slot)[BODY // 2] ^= 4
    with pytest.raises(TornError, match="other bytes"):
        Aside().copy(source, slot, head)


def test_what_is_damaged_on_the_way_is_not_kept(harbour: Harbour) -> None:
    source = a_segment()
    slot, head = snapshot(source, 7)
    body = memoryview(bytearray(source.body(slot)[:BODY]))
    assert harbour.send(head, body) == {"kept": True}
    _, newer = snapshot(source, 8)
    assert "other bytes" in harbour.send(newer, body)["refused"]  # verified after
    assert harbour.steps == [(1, 7)]
    body[:] = bytes([8]) * BODY
    assert harbour.send(newer, body) == {"kept": True}


def test_a_stranger_and_whoever_changes_a_piece_are_dropped(harbour: Harbour) -> None:
    source = a_segment()
    slot, head = snapshot(source, 7)
    body = source.body(slot)[:BODY]
    with pytest.raises((OSError, wire.WireError)):
        harbour.send(head, body, key=secrets.token_hex(16))
    with (
        Meddler(harbour.receiver.port, flip_at=1_500_000) as meddler,
        socket.create_connection(("127.0.0.1", meddler.port), timeout=20) as connection,
        pytest.raises(ConnectionError),
    ):
        hand_over(Stream(connection), harbour.key, head, body, Throttle(1e12))
    assert harbour.steps == []
    assert harbour.send(head, body) == {"kept": True}


def test_other_runs_and_what_is_no_head_are_refused(harbour: Harbour) -> None:
    source = a_segment()
    slot, head = snapshot(source, 7, run="other.1")
    body = source.body(slot)[:BODY]
    assert "this is j.1" in harbour.send(head, body)["refused"]
    for bad in ({}, {"version": 1}, {**memory.encode_head(head), "bytes": -1}, None, "x"):
        with pytest.raises(TornError):
            memory.decode_head(bad)
    small = Harbour(bytes_max=1_000)
    _, good = snapshot(source, 8)
    assert "exceed the node's bound" in small.send(good, body)["refused"]


class Meddler:
    """Somebody between two nodes who changes one byte of what the sender says."""

    def __init__(self, port: int, flip_at: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._to, self._flip_at = port, flip_at

    def __enter__(self) -> Meddler:
        threading.Thread(target=self._work, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _work(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            back = threading.Thread(target=self._pass, args=(server, client, None), daemon=True)
            back.start()
            self._pass(client, server, self._flip_at)
            back.join(20)

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, flip_at: int | None) -> None:
        seen = 0
        with suppress(OSError):
            while data := bytearray(source.recv(65_536)):
                if flip_at is not None and seen <= flip_at < seen + len(data):
                    data[flip_at - seen] ^= 1
                seen += len(data)
                target.sendall(data)
        with suppress(OSError):  # whatever ended it, the other side is told
            target.shutdown(socket.SHUT_WR)


# ---- real agents ---------------------------------------------------------------------------------


def copies(steady: SteadyGang, node: str) -> list[int]:
    """Return the steps of the whole copies in a node's memory, as its agent holds it."""
    found: set[int] = set()
    for process in marked(Place(steady.gang.home(node), "j.1")):
        for link in Path(f"/proc/{process.pid}/fd").glob("*"):
            with suppress(OSError):
                if link.readlink().name.startswith("memfd:holdfast-partner"):
                    segment = Segment(os.open(link, os.O_RDWR))
                    for slot in segment.heads():
                        with suppress(TornError):
                            found.add(segment.read(slot)[0].step)
    return sorted(found)


@pytest.mark.system
@pytest.mark.torch
@pytest.mark.timeout(300)
def test_the_only_node_is_lost_and_its_standby_goes_on_from_memory(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    steps, here = 60, tmp_path / "go-on"
    # within step 30, its update done: the snapshot of step 29 is whole, that of 30 not begun; with
    # a budget that no cost exceeds there is one of step 29, on a busy machine too
    wait = f"while [ ! -e {here} ]; do sleep 0.02; done"
    wishes = {"save_every": 100_000, "snapshot_budget": 1e9}
    env = {"POISON": f"step == 30 and os.system({wait!r})"}
    with steady_gang(
        tmp_path, "a", standbys="c", per_node=2, steps=steps, wishes=wishes, more_env=env
    ) as steady:
        gang = steady.gang
        wait_for(lambda: 29 in copies(steady, "c"), limit=120, pause=0.05)
        assert "partner-copy" in [note.kind for note in gang.report("a").notes]
        gang.kill_node("a")
        here.touch()
        steady.gang.seats.pop("a")
        gang.give(gang.grant(2, "c"), to="c")
        steady.nodes = "c"
        ends = steady.digests(limit=120)
        began = [one for one in steady.said if "began" in one][-2:]
        assert [(one["began"], one["recovered"]) for one in began] == [(29, "partner")] * 2
        assert steady.repeated() == 0
        assert [commit.step for commit in steady.lineage().commits] == [steps]  # the end alone
        assert set(ends) == {undisturbed(tmp_path / "alone", world=2, steps=steps)}
