"""The agent's mouth: non-blocking connections to the other agents of its attempt.

Words are levels, so a queue keeps only the newest few: what could not be sent in time is made good
by the next word. A peer that refuses, or cannot be connected to within a second, is reported once
per try as broken; whether it is dead is for nobody here to say.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from orchestrator.runtime import wire
from orchestrator.runtime.lineage import Member

CONNECT_LIMIT = 1.0  #: seconds for a connection to stand
RETRY_AFTER = 0.25  #: seconds between two tries
IDLE_MAX = 60.0  #: seconds without a word after which a connection is given up
QUEUE_MAX = 16  #: words that wait for a connection
_CHUNK = 65_536


class _Channel:
    """One connection, made when there is something to say."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.queue: deque[dict[str, Any]] = deque(maxlen=QUEUE_MAX)
        self.connection: socket.socket | None = None
        self.asker: wire.Asker | None = None
        self.proven = False  #: a reply came, so the other side holds the key
        self.unsent = bytearray()
        self.limit_at = 0.0  #: when a connection that does not stand is given up
        self.retry_at = 0.0
        self.said_at = 0.0


class Mouth:
    """All channels of one agent."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        key: str,
        broken: Callable[[Member], None],
    ) -> None:
        """Say words sealed with `key`; `broken` is told who cannot be connected to."""
        self._selector, self._key, self._broken = selector, key, broken
        self._channels: dict[Member, _Channel] = {}
        self.now = time.monotonic()  #: the loop sets it before it dispatches

    def say(self, member: Member, word: Mapping[str, Any]) -> None:
        """Queue a word, and send it at once if the connection stands."""
        channel = self._channels.setdefault(member, _Channel(member))
        channel.queue.append({"ask": "word", "word": word})
        channel.said_at = self.now
        if channel.connection is None and self.now >= channel.retry_at:
            self._connect(channel)
        self._pump(channel)

    def tend(self) -> None:
        """Try again what is due, and give up what does not stand in time. Call it every tick."""
        for channel in tuple(self._channels.values()):
            stands = channel.asker is not None and channel.asker.greeted
            if channel.connection is not None and not stands and self.now >= channel.limit_at:
                self._fail(channel)
            elif channel.connection is None and channel.queue and self.now >= channel.retry_at:
                self._connect(channel)
            elif self.now - channel.said_at > IDLE_MAX:
                self._hang_up(channel)
                del self._channels[channel.member]

    def flush(self) -> None:
        """Send what the sockets take now; used before the agent exits."""
        for channel in tuple(self._channels.values()):
            self._pump(channel)

    def close(self) -> None:
        """Hang up on everybody."""
        for channel in self._channels.values():
            self._hang_up(channel)
        self._channels.clear()

    def _connect(self, channel: _Channel) -> None:
        host, port = channel.member.host, channel.member.port
        channel.limit_at = self.now + CONNECT_LIMIT
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # out of descriptors: says nothing about the peer
            channel.retry_at = self.now + RETRY_AFTER
            return
        connection.setblocking(False)
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.connection, channel.asker = connection, wire.Asker(self._key)
        self._selector.register(
            connection,
            selectors.EVENT_READ | selectors.EVENT_WRITE,
            lambda events: self._serve(channel, events),
        )
        try:
            code = connection.connect_ex((host, port))
        except OSError:  # a host that is no address
            code = errno.EADDRNOTAVAIL
        if code not in (0, errno.EINPROGRESS):
            self._fail(channel)

    def _serve(self, channel: _Channel, events: int) -> None:
        connection, asker = channel.connection, channel.asker
        if connection is None or asker is None:
            return
        if events & selectors.EVENT_READ:
            try:
                data = connection.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("hung up")
                channel.proven = bool(asker.feed(data)) or channel.proven
            except (BlockingIOError, InterruptedError):
                pass
            except (OSError, wire.WireError):
                self._lose(channel)
                return
        elif connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self._fail(channel)
            return
        self._pump(channel)

    def _pump(self, channel: _Channel) -> None:
        connection, asker = channel.connection, channel.asker
        if connection is None or asker is None:
            return
        while asker.greeted and channel.queue and asker.outstanding < wire.OUTSTANDING_MAX:
            channel.unsent += asker.ask(channel.queue.popleft())
        try:
            if channel.unsent:
                sent = connection.send(channel.unsent)
                del channel.unsent[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._lose(channel)
            return
        writes = bool(channel.unsent) or self._is_connecting(connection)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)
        key = self._selector.get_key(connection)
        if key.events != wanted:
            self._selector.modify(connection, wanted, key.data)

    @staticmethod
    def _is_connecting(connection: socket.socket) -> bool:
        try:
            connection.getpeername()
        except OSError:
            return True
        return False

    def _lose(self, channel: _Channel) -> None:
        """Try a lost connection again at once: only if that fails, the peer counts as broken."""
        if not channel.proven:
            self._fail(channel)
            return
        self._hang_up(channel)
        self._connect(channel)

    def _fail(self, channel: _Channel) -> None:
        self._hang_up(channel)
        channel.retry_at = self.now + RETRY_AFTER
        self._broken(channel.member)

    def _hang_up(self, channel: _Channel) -> None:
        if channel.connection is not None:
            self._selector.unregister(channel.connection)
            channel.connection.close()
        channel.connection = channel.asker = None
        channel.proven = False
        channel.unsent.clear()
