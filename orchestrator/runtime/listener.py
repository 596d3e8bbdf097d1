"""The agent's ear: one non-blocking TCP listener for the controller and for peers.

It lives in the agent's `selectors` loop and never blocks it: whoever sends nothing, half a line,
garbage or endless bytes costs a buffer of bounded size for a bounded time, and nothing else.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from orchestrator.errors import HoldfastError, TransientError
from orchestrator.runtime import wire

CONNECTIONS_MAX = 512  #: open at the same time; a larger gang has a larger problem with all-to-all
UNPROVEN_MAX = 64  #: of these, how many may not have shown the key yet
PROVE_WITHIN = 5.0  #: seconds a caller has to show the key
IDLE_MAX = 120.0  #: seconds after which a proven caller that says nothing is dropped
_CHUNK = 65_536
_UNSENT_MAX = 16 * 1024 * 1024  #: bytes of replies that a caller may leave unread

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class _Caller:
    """One accepted connection."""

    def __init__(self, connection: socket.socket, key: str, now: float) -> None:
        self.connection = connection
        self.answerer = wire.Answerer(key)
        self.unsent = bytearray(self.answerer.greeting())
        self.heard_at = now


class Listener:
    """Accepts, proves and answers; `answer` maps a request's body to the reply's body.

    `answer` may raise `HoldfastError`: the caller is told, the listener lives on.
    """

    def __init__(
        self, selector: selectors.BaseSelector, host: str, key: str, answer: Answer
    ) -> None:
        """Bind a free port of `host`; raises `TransientError` if the interface is not there."""
        self._selector = selector
        self._key = key
        self._answer = answer
        self._callers: set[_Caller] = set()
        self.now = time.monotonic()  #: the loop sets it before it dispatches
        try:
            family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server((host, 0), family=family, backlog=128)
        except OSError as error:
            raise TransientError(f"cannot listen on {host}: {error}") from error
        self._socket.setblocking(False)
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:  # the caller is gone again, or descriptors are short: the next look tries
            return
        unproven = sum(1 for caller in self._callers if not caller.answerer.proven)
        if len(self._callers) >= CONNECTIONS_MAX or unproven >= UNPROVEN_MAX:
            connection.close()
            return
        connection.setblocking(False)
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller = _Caller(connection, self._key, self.now)
        self._callers.add(caller)
        self._selector.register(
            connection, selectors.EVENT_READ, lambda events: self._serve(caller, events)
        )
        self._send(caller)

    def _serve(self, caller: _Caller, events: int) -> None:
        if events & selectors.EVENT_READ and not self._receive(caller):
            self._drop(caller)
            return
        self._send(caller)

    def _receive(self, caller: _Caller) -> bool:
        """Take what came and answer it; False if the caller must go."""
        try:
            data = caller.connection.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not data:
            return False
        try:
            requests = caller.answerer.feed(data)
        except wire.WireError:
            return False
        if requests:
            caller.heard_at = self.now
        for request in requests:
            caller.unsent += caller.answerer.reply(request, self._reply(request.body))
        return len(caller.unsent) <= _UNSENT_MAX

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._answer(body)
        except HoldfastError as error:
            return wire.refusal(error)

    def _send(self, caller: _Caller) -> None:
        if caller not in self._callers:
            return
        try:
            if caller.unsent:
                sent = caller.connection.send(caller.unsent)
                del caller.unsent[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._drop(caller)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if caller.unsent else 0)
        key = self._selector.get_key(caller.connection)
        if key.events != wanted:
            self._selector.modify(caller.connection, wanted, key.data)

    def _drop(self, caller: _Caller) -> None:
        if caller in self._callers:
            self._callers.discard(caller)
            self._selector.unregister(caller.connection)
            caller.connection.close()

    def sweep(self) -> None:
        """Drop callers that did not prove themselves in time, or went quiet. Call it every tick."""
        for caller in tuple(self._callers):
            limit = IDLE_MAX if caller.answerer.proven else PROVE_WITHIN
            if self.now - caller.heard_at > limit:
                self._drop(caller)

    def flush(self) -> None:
        """Try once more to send what is unsent; used before the agent exits."""
        for caller in tuple(self._callers):
            self._send(caller)

    def close(self) -> None:
        """Hang up on everybody."""
        for caller in tuple(self._callers):
            self._drop(caller)
        self._selector.unregister(self._socket)
        self._socket.close()
