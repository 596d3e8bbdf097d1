"""The courier: copies snapshots from one node's memory to another's, beside everything else.

    python -m orchestrator.runtime.courier

A child of the agent under the job's interpreter, at the lowest priority. The ranks do not know of
it, so that no step waits for it. When a new snapshot is in this node's segment it copies that aside
(the ranks overwrite it soon), verifies it, asks the partner's agent where *its* courier listens,
and hands it over: a sealed offer with the snapshot's head, then pieces that each carry a seal with
the attempt's key. The receiver writes into the segment that its agent made, verifies what lies
there, and only then publishes the head. Whoever is killed in between leaves the copy before.

What is not verified is never sent, nor kept: a courier that cannot compute the ranks' hash says so.
Standard library only (xxhash if it is there), Python 3.10.
"""

from __future__ import annotations

import ctypes
import os
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.runtime import memory, packets, wire
from orchestrator.runtime.attendant import line_to_agent
from orchestrator.runtime.ladder import Image
from orchestrator.runtime.memory import Head, Segment, TornError
from orchestrator.runtime.throttle import Throttle

PIECE_BYTES = 1024 * 1024
LOOK_EVERY = 0.02  #: seconds between two looks at the segment
QUIET_LIMIT = 10.0  #: seconds that the other side may take for its next bytes
RETRY_FIRST, RETRY_MAX = 1.0, 15.0  #: seconds between tries at a partner that does not take it
ROOM_LIMIT = 10.0  #: seconds for the agent to say whether there is memory
_SEAL_BYTES = 64


class UnableError(PermanentError):
    """A copy that will not succeed by trying again."""


@dataclass(frozen=True)
class Errand:
    """What the agent wants sent, and to whom; the first that takes it is the partner."""

    segment: Segment
    to: tuple[tuple[str, str, int], ...]  #: (node, host, port of its agent)
    rate: float  #: bytes per second
    aside_max: int  #: bytes that may be copied aside


class Stream:
    """A blocking connection on which every wait has a limit."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected socket."""
        self._connection = connection
        connection.settimeout(QUIET_LIMIT)
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *parts: bytes | memoryview) -> None:
        """Send everything."""
        for part in parts:
            self._connection.sendall(part)

    def take(self) -> bytes:
        """Return what arrives next; raises `ConnectionResetError` at the end."""
        data = self._connection.recv(65_536)
        if not data:
            raise ConnectionResetError("hung up")
        return data

    def fill(self, target: memoryview) -> None:
        """Receive exactly as many bytes as `target` has."""
        at = 0
        while at < len(target):
            count = self._connection.recv_into(target[at:])
            if count == 0:
                raise ConnectionResetError("hung up")
            at += count


# ---- sending -------------------------------------------------------------------------------------


class Aside:
    """Room for one snapshot that nobody overwrites; used again and again."""

    def __init__(self) -> None:
        """Take no memory yet."""
        self._room = bytearray()

    def copy(self, segment: Segment, slot: int, head: Head) -> memoryview:
        """Return a verified copy of a slot's body.

        Raises `TornError` if it is not what was hashed, `MemoryError` if there is no room.
        """
        if len(self._room) < head.bytes:
            self._room = bytearray()
            self._room = bytearray(head.bytes)
        body = memoryview(self._room)[: head.bytes]
        if head.bytes:
            target = ctypes.addressof(ctypes.c_char.from_buffer(self._room))
            source = ctypes.addressof(ctypes.c_char.from_buffer(segment.body(slot)))
            ctypes.memmove(target, source, head.bytes)
        memory.verify(head, body)
        return body


def hand_over(
    stream: Stream, key: str, head: Head, body: memoryview, throttle: Throttle
) -> Mapping[str, Any]:
    """Offer a snapshot on a connection and send it, if it is wanted; return the last reply."""
    asker = wire.Asker(key)
    replies: list[dict[str, Any]] = []

    def ask(request: Mapping[str, Any]) -> dict[str, Any]:
        while not asker.greeted:
            replies.extend(asker.feed(stream.take()))
        stream.send(asker.ask(request))
        while not replies:
            replies.extend(asker.feed(stream.take()))
        return replies.pop(0)

    said = ask({"ask": "keep", "head": memory.encode_head(head)})
    channel = said.get("channel")
    if not isinstance(channel, str):
        return said
    for index, at in enumerate(range(0, head.bytes, PIECE_BYTES)):
        piece = body[at : at + PIECE_BYTES]
        throttle.spend(len(piece))
        stream.send(wire.seal_piece(key, channel, index, piece), piece)
    return ask({"ask": "kept"})


class Sender(threading.Thread):
    """Sends what is new in a segment to a partner."""

    def __init__(self, key: str, tell: Any) -> None:
        """`tell(body)` reaches the agent."""
        super().__init__(name="sender", daemon=True)
        self._key, self._tell = key, tell
        self.errand: Errand | None = None
        self._of: Errand | None = None  #: what the following belongs to
        self._aside = Aside()
        self._stamp: tuple[bytes, ...] = ()
        self._done: Image | None = None
        self._partner = 0  #: index of who takes it
        self._pause, self._retry_at = RETRY_FIRST, 0.0

    def run(self) -> None:
        """Look, and send, for ever."""
        while True:
            errand = self.errand
            if errand is not self._of:
                self._of, self._stamp, self._done = errand, (), None
                self._partner, self._pause, self._retry_at = 0, RETRY_FIRST, 0.0
            if errand is None or not errand.to or time.monotonic() < self._retry_at:
                time.sleep(LOOK_EVERY * 5)
                continue
            stamp = errand.segment.stamp()
            if stamp == self._stamp:
                time.sleep(LOOK_EVERY)
                continue
            self._stamp = stamp
            heads = errand.segment.heads()
            slot = max(heads, key=lambda s: heads[s].image, default=None)
            if slot is not None and (self._done is None or heads[slot].image > self._done):
                self._send(errand, slot, heads[slot])

    def _send(self, errand: Errand, slot: int, head: Head) -> None:
        node, host, port = errand.to[self._partner % len(errand.to)]
        began = time.monotonic()
        try:
            if head.bytes > errand.aside_max:
                raise UnableError(
                    f"{head.bytes} bytes exceed what is left of this node's bound of memory"
                )
            said = self._deliver(errand, slot, head, (host, port))
        except TornError as error:
            if errand.segment.heads().get(slot) == head:  # nobody wrote there meanwhile
                self._report("partner-copy-failed", node, head, str(error))
                self._done = head.image
            return
        except (HoldfastError, OSError, MemoryError) as error:
            self._fail(node, head, str(error), next_one=not isinstance(error, UnableError))
            return
        if said.get("kept") or said.get("has"):
            self._done, self._pause = head.image, RETRY_FIRST
            seconds = time.monotonic() - began
            self._report("partner-copy", node, head, "", seconds=seconds)
        else:
            self._fail(node, head, str(said.get("refused", said))[:300])

    def _deliver(
        self, errand: Errand, slot: int, head: Head, agent: tuple[str, int]
    ) -> Mapping[str, Any]:
        said = wire.call(*agent, self._key, {"ask": "harbour"}, QUIET_LIMIT)
        door = said.get("port")
        if not isinstance(door, int):
            raise TransientError("its courier is not there yet")
        body = self._aside.copy(errand.segment, slot, head)
        with socket.create_connection((agent[0], door), timeout=QUIET_LIMIT) as connection:
            return hand_over(Stream(connection), self._key, head, body, Throttle(errand.rate))

    def _fail(self, node: str, head: Head, why: str, *, next_one: bool = True) -> None:
        self._report("partner-copy-failed", node, head, why)
        self._partner += next_one
        self._stamp = ()  # look again, at what is newest then
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(RETRY_MAX, 2 * self._pause)

    def _report(self, kind: str, node: str, head: Head, why: str, **more: float) -> None:
        """Tell of every copy; the agent makes notes of what is new."""
        facts = {"node": node, "generation": head.generation, "step": head.step, **more}
        self._tell({"say": kind, "why": why, "bytes": head.bytes, **facts})


# ---- receiving -----------------------------------------------------------------------------------


class Receiver(threading.Thread):
    """Takes copies in, one at a time."""

    def __init__(self, host: str, key: str, run: str, ask_room: Any) -> None:
        """Listen on a free port; `ask_room(bytes)` returns a descriptor or raises."""
        super().__init__(name="receiver", daemon=True)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=8)
        self.port: int = self._listener.getsockname()[1]
        self._key, self._run, self._ask_room = key, run, ask_room
        self.segment: Segment | None = None

    def run(self) -> None:
        """Accept for ever; whoever does not prove the key in time is dropped."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                time.sleep(0.1)
                continue
            with connection, suppress(OSError, wire.WireError):
                self._serve(Stream(connection))

    def _serve(self, stream: Stream) -> None:
        answerer = wire.Answerer(self._key)
        stream.send(answerer.greeting())
        request = self._next(stream, answerer)
        try:
            head, slot = self._open(request.body)
        except (HoldfastError, TornError) as error:
            stream.send(answerer.reply(request, {"refused": str(error)[:500]}))
            return
        if slot is None:
            stream.send(answerer.reply(request, {"has": True}))
            return
        segment, channel = self.segment, os.urandom(16).hex()
        assert segment is not None
        stream.send(answerer.reply(request, {"channel": channel}))
        segment.erase(slot)
        self._fill(stream, segment.body(slot)[: head.bytes], channel)
        last = self._next(stream, answerer)
        try:
            memory.verify(head, segment.body(slot)[: head.bytes])
            segment.publish(slot, head)
        except TornError as error:
            stream.send(answerer.reply(last, {"refused": str(error)}))
            return
        stream.send(answerer.reply(last, {"kept": True}))

    @staticmethod
    def _next(stream: Stream, answerer: wire.Answerer) -> wire.Request:
        """Return the next request; raises `WireError` on more than one, for none is asked for."""
        until = time.monotonic() + QUIET_LIMIT
        while time.monotonic() < until:
            requests = answerer.feed(stream.take())
            if len(requests) > 1:
                raise wire.WireError("two requests at once")
            if requests:
                return requests[0]
        raise wire.WireError("no request in time")

    def _open(self, body: Mapping[str, Any]) -> tuple[Head, int | None]:
        """Return what is offered and where it goes; None if it is here already."""
        if body.get("ask") != "keep":
            raise PermanentError("only `keep` is understood here")
        head = memory.decode_head(body.get("head"))
        if head.run != self._run:
            raise PermanentError(f"this is {self._run}")
        memory.hasher(head.hash)
        if self.segment is None or self.segment.body_max < head.bytes:
            self.segment = Segment(self._ask_room(memory.segment_bytes(head.bytes)))
        held = {slot: one.image for slot, one in self.segment.heads().items()}
        newest = max(held.values(), default=None)
        if newest is not None and head.image == newest:
            return head, None
        if newest is not None and head.image < newest:
            raise PermanentError(f"step {newest.step} of generation {newest.generation} is here")
        return head, self.segment.spare_slot()

    def _fill(self, stream: Stream, body: memoryview, channel: str) -> None:
        seal = memoryview(bytearray(_SEAL_BYTES))
        for index, at in enumerate(range(0, len(body), PIECE_BYTES)):
            piece = body[at : at + PIECE_BYTES]
            stream.fill(seal)
            stream.fill(piece)
            if not wire.same(bytes(seal), wire.seal_piece(self._key, channel, index, piece)):
                raise wire.WireError("a piece without the attempt's key")


# ---- the process ---------------------------------------------------------------------------------


class Courier:
    """The agent's line, and the two threads."""

    def __init__(self, line: socket.socket, asked: Mapping[str, Any]) -> None:
        """Begin with what the agent's first message says: host, key, run."""
        self._line, self._lock = line, threading.Lock()
        self._rooms: queue.SimpleQueue[tuple[int | None, str]] = queue.SimpleQueue()
        self._sender = Sender(asked["key"], self._tell)
        self._receiver = Receiver(asked["host"], asked["key"], asked["run"], self._ask_room)

    def _tell(self, body: Mapping[str, Any]) -> None:
        with self._lock, suppress(OSError):
            packets.send(self._line, body)

    def _ask_room(self, size: int) -> int:
        while not self._rooms.empty():  # an answer that came too late
            descriptor, _ = self._rooms.get()
            packets.close([] if descriptor is None else [descriptor])
        self._tell({"say": "room", "bytes": size})
        try:
            descriptor, refused = self._rooms.get(timeout=ROOM_LIMIT)
        except queue.Empty:
            raise TransientError("the agent did not answer") from None
        if descriptor is None:
            raise PermanentError(refused)
        return descriptor

    def serve(self) -> None:
        """Do as the agent says until it hangs up."""
        self._tell({"say": "door", "port": self._receiver.port})
        self._sender.start()
        self._receiver.start()
        while True:
            select.select([self._line], [], [])
            body, descriptors = packets.receive(self._line)
            if body is None:
                return
            self._heed(body, descriptors)

    def _heed(self, body: Mapping[str, Any], descriptors: list[int]) -> None:
        match body.get("do"):
            case "send" if descriptors:
                to = tuple((str(n), str(h), int(p)) for n, h, p in body["to"])
                segment = Segment(descriptors.pop())
                self._sender.errand = Errand(segment, to, body["rate"], body["aside_max"])
            case "rest":
                self._sender.errand = None
            case "room":
                found = descriptors.pop() if descriptors else None
                self._rooms.put((found, str(body.get("refused", ""))))
            case "forget":
                self._receiver.segment = None
            case _:
                pass
        packets.close(descriptors)


def main() -> int:
    """Serve on the line that the agent handed over."""
    os.nice(19)
    line, asked = line_to_agent()
    if asked is None:
        return 0
    Courier(line, asked).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
