"""How the controller asks an agent, and agents talk to each other: sealed JSON lines over TCP.

The listener greets with a random challenge. Every request carries a counter, a random nonce and an
HMAC-SHA256 over the challenge, both of them and the body, with the attempt's key; every reply is
sealed over the request's seal. So a stranger can neither ask, nor answer, nor replay what it
heard. Nothing is encrypted: this is for the cluster's own network (see docs/security).

`Asker` and `Answerer` know no sockets, so that the blocking client here, the agent's loop
(`listener.py`, `peers.py`) and tests share one protocol. Standard library only, Python 3.10.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.errors import HoldfastError, PermanentError, TransientError

GREETING = b"holdfast 1"  #: name and version of the protocol
REQUEST_MAX = 2 * 1024 * 1024  #: bytes of one request; a grant of 10,000 seats fits
REPLY_MAX = 8 * 1024 * 1024  #: bytes of one reply; a report with all its notes fits
OUTSTANDING_MAX = 64  #: requests that one connection may have unanswered
_GREETING_MAX = 128
_CHUNK = 65_536


class WireError(PermanentError):
    """The other side does not speak this protocol, or does not hold the attempt's key."""


class Connection(Protocol):
    """What `call` needs of a socket, so that a tunnel can stand in for one."""

    def settimeout(self, seconds: float | None) -> None:
        """Let the next call take that long."""

    def sendall(self, data: bytes) -> Any:
        """Send everything."""

    def recv(self, size: int) -> bytes:
        """Return what arrived; empty once the other side hung up."""


#: (host, port, limit in seconds) -> an open connection; raises `OSError` or `HoldfastError`
Connect = Callable[[str, int, float], AbstractContextManager[Connection]]


def direct(host: str, port: int, limit: float) -> AbstractContextManager[Connection]:
    """Connect by TCP from this computer."""
    return socket.create_connection((host, port), timeout=limit)


class Lines:
    """Cuts a stream of bytes into lines, and refuses one that grows beyond its limit."""

    def __init__(self, limit: int) -> None:
        """Start empty; `limit` is in bytes and may be changed at any time."""
        self.limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived and return the whole lines; raises `WireError` beyond the limit."""
        self._rest += data
        if b"\n" not in data:
            self._check(len(self._rest))
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        self._check(max(map(len, (*lines, rest))))
        return lines

    def _check(self, size: int) -> None:
        if size > self.limit:
            raise WireError(f"a line of more than {self.limit} bytes")


def _seal(key: str, *parts: bytes | memoryview) -> bytes:
    """Return the HMAC over parts that each carry their length, in hexadecimal."""
    code = hmac.new(bytes.fromhex(key), digestmod=hashlib.sha256)
    for part in parts:
        code.update(len(part).to_bytes(8, "big"))
        code.update(part)
    return code.hexdigest().encode()


def _body(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise WireError("not a JSON object")
    return body


def _dump(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Request:
    """One request that was proven to come from a holder of the key."""

    seal: bytes
    body: dict[str, Any]


class Answerer:
    """The listening side of one connection."""

    def __init__(self, key: str) -> None:
        """Choose a fresh challenge."""
        self._key = key
        self._challenge = secrets.token_hex(16).encode()
        self._counter = 0
        self._lines = Lines(REQUEST_MAX)
        self.proven = False  #: at least one request was sealed with the key

    def greeting(self) -> bytes:
        """Return what is sent first."""
        return GREETING + b" " + self._challenge + b"\n"

    def feed(self, data: bytes) -> list[Request]:
        """Take what arrived, return whole requests; raises `WireError`: then hang up."""
        return [self._open(line) for line in self._lines.feed(data)]

    def _open(self, line: bytes) -> Request:
        parts = line.split(b" ", 3)
        if len(parts) != 4:
            raise WireError("not a request")
        seal, nonce, counter, body = parts
        self._counter += 1
        if counter != str(self._counter).encode():
            raise WireError("a request out of order")
        expected = _seal(self._key, b"ask", self._challenge, nonce, counter, body)
        if not hmac.compare_digest(seal, expected):
            raise WireError("a request without the attempt's key")
        self.proven = True
        return Request(seal, _body(body))

    def reply(self, request: Request, body: Mapping[str, Any]) -> bytes:
        """Return the sealed reply to a request."""
        data = _dump(body)
        return _seal(self._key, b"tell", request.seal, data) + b" " + data + b"\n"


def seal_piece(key: str, channel: str, index: int, data: bytes | memoryview) -> bytes:
    """Return what proves one piece of bulk data; `channel` was told in a sealed reply.

    For bytes that are too many for a request: they follow on the same connection.
    """
    return _seal(key, b"piece", channel.encode(), str(index).encode(), data)


def same(one: bytes, other: bytes) -> bool:
    """Compare two seals in constant time."""
    return hmac.compare_digest(one, other)


class Asker:
    """The connecting side of one connection. Replies come in the order of the requests."""

    def __init__(self, key: str) -> None:
        """Wait for the greeting."""
        self._key = key
        self._challenge: bytes | None = None
        self._counter = 0
        self._lines = Lines(_GREETING_MAX)
        self._asked: deque[bytes] = deque()

    @property
    def greeted(self) -> bool:
        """Whether requests can be sealed now."""
        return self._challenge is not None

    @property
    def outstanding(self) -> int:
        """How many requests have no reply yet."""
        return len(self._asked)

    def ask(self, body: Mapping[str, Any]) -> bytes:
        """Return a sealed request; raises `WireError` before the greeting or if it is too long."""
        if self._challenge is None:
            raise WireError("asked before the greeting")
        data = _dump(body)
        if len(data) > REQUEST_MAX - 256:
            raise WireError(f"a request of {len(data)} bytes is too long")
        self._counter += 1
        nonce, counter = secrets.token_hex(16).encode(), str(self._counter).encode()
        seal = _seal(self._key, b"ask", self._challenge, nonce, counter, data)
        self._asked.append(seal)
        return b" ".join((seal, nonce, counter, data)) + b"\n"

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take what arrived, return whole replies; raises `WireError`: then hang up."""
        replies = []
        if self._challenge is None:
            data = self._greet(data)
        for line in self._lines.feed(data):
            replies.append(self._open(line))
        return replies

    def _greet(self, data: bytes) -> bytes:
        head, newline, rest = data.partition(b"\n")
        lines = self._lines.feed(head + newline)
        if lines:
            name, _, challenge = lines[0].rpartition(b" ")
            if name != GREETING or not challenge:
                raise WireError("not an agent's greeting")
            self._challenge = challenge
            self._lines.limit = REPLY_MAX
        return rest

    def _open(self, line: bytes) -> dict[str, Any]:
        seal, _, data = line.partition(b" ")
        if not self._asked:
            raise WireError("a reply to nothing")
        if not hmac.compare_digest(seal, _seal(self._key, b"tell", self._asked.popleft(), data)):
            raise WireError("a reply without the attempt's key")
        return _body(data)


def refusal(error: HoldfastError) -> dict[str, Any]:
    """Return the reply that makes `call` raise the same kind of error on the other side."""
    return {"error": str(error), "transient": isinstance(error, TransientError)}


def call(
    host: str,
    port: int,
    key: str,
    body: Mapping[str, Any],
    timeout: float,
    connect: Connect = direct,
) -> dict[str, Any]:
    """Ask once and return the reply, within `timeout` seconds altogether.

    Raises `TransientError` if nobody answers in time or the connection breaks (a listener hangs up
    on a wrong key without a word), `PermanentError` if the other side refuses or is no agent.
    """
    deadline = time.monotonic() + timeout
    where = f"{host}:{port}"
    try:
        with connect(host, port, timeout) as connection:
            reply = _exchange(connection, Asker(key), body, deadline)
    except OSError as error:  # refused, reset, unreachable, timed out, no such host
        raise TransientError(f"{where} does not answer: {error}") from error
    except WireError as error:
        raise WireError(f"{where}: {error}") from error
    if "error" in reply:
        kind = TransientError if reply.get("transient") else PermanentError
        raise kind(f"{where} refused: {str(reply['error'])[:1000]}")
    return reply


def _exchange(
    connection: Connection, asker: Asker, body: Mapping[str, Any], deadline: float
) -> dict[str, Any]:
    asked = False
    while True:
        if asker.greeted and not asked:
            _arm(connection, deadline)
            connection.sendall(asker.ask(body))
            asked = True
        _arm(connection, deadline)
        data = connection.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("hung up without an answer")
        replies = asker.feed(data)
        if replies:
            return replies[0]


def _arm(connection: Connection, deadline: float) -> None:
    """Let the next call on the socket take what is left of the time, whoever trickles bytes."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    connection.settimeout(left)
