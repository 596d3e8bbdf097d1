"""One persistent connection to one host: made when it is needed, checked, made again with jitter.

The host key is compared before anything is said that matters. While a connection cannot be made,
callers fail at once for a growing pause, so that a dead host delays nobody; a host that does not
answer on an open connection loses it, and is then treated the same.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import paramiko

from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.transports.ssh.access import Access, HostAddress
from orchestrator.transports.ssh.hostkeys import PinnedKeys
from orchestrator.transports.ssh.watchdog import Watchdog

#: Broken or slow; an attacker in between could push us down to them.
DISABLED = {
    "kex": [
        "diffie-hellman-group14-sha1",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group-exchange-sha1",
        "diffie-hellman-group-exchange-sha256",
    ],
    "macs": ["hmac-md5", "hmac-sha1", "hmac-md5-96", "hmac-sha1-96"],
    "ciphers": ["3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc"],
}
IDLE_POLL = 1.0  #: seconds between two looks of paramiko's reader at its own end
GRACE = 1.0  #: seconds after a limit until the watchdog drops the connection
PATIENT = 5.0  #: seconds; a host silent for a limit this long is treated as gone

#: paramiko logs what it also raises, with tracebacks; whoever gets the error tells it once
QUIET = logging.getLogger("holdfast.ssh.paramiko")

Dial = Callable[[float], Any]  #: limit in seconds -> an open socket


@dataclass(frozen=True, slots=True)
class _Failure:
    error: HoldfastError
    until: float  #: monotonic; not tried again before
    pause: float


class SshLink:
    """A connection that is there when it is needed."""

    def __init__(
        self, host: HostAddress, access: Access, keys: PinnedKeys, dial: Dial, dog: Watchdog
    ) -> None:
        """Remember the host; nothing is opened yet."""
        self.host = host
        self._access, self._keys, self._dial, self._dog = access, keys, dial, dog
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(access.sessions_max)
        self._transport: paramiko.Transport | None = None
        self._failure: _Failure | None = None
        QUIET.setLevel(logging.CRITICAL)
        self._silences = 0  #: opens in a row that timed out

    @contextmanager
    def session(self, limit: float) -> Iterator[paramiko.Channel]:
        """Yield a channel for one command; raises `TransientError` if there is none in time."""
        end = time.monotonic() + limit
        if not self._sessions.acquire(timeout=limit):
            raise TransientError(f"{self.host.name}: too many commands at once; tried {limit:g} s")
        try:
            channel = self._open("session", None, end)
            try:
                yield channel
            finally:
                channel.close()
        finally:
            self._sessions.release()

    def tunnel(self, address: str, port: int, limit: float) -> paramiko.Channel:
        """Return a connection from the host to `address`:`port`; raises `TransientError`."""
        return self._open("direct-tcpip", (address, port), time.monotonic() + limit)

    def drop(self) -> None:
        """Close the connection; the next use makes a new one."""
        with suppress(Exception):
            transport, self._transport = self._transport, None
            if transport is not None:
                transport.close()

    @contextmanager
    def bounded(self, limit: float) -> Iterator[None]:
        """Drop the connection if the body takes longer than `limit`, which ends it."""
        with self._dog.alarm(max(0.0, limit) + GRACE, self._silent):
            yield

    def _silent(self) -> None:
        self._fail(TransientError(f"{self.host.name}: the host does not answer"))
        self.drop()

    def _open(self, kind: str, target: tuple[str, int] | None, end: float) -> paramiko.Channel:
        transport = self._connected(end)
        left = end - time.monotonic()
        if left <= 0:
            raise TransientError(f"{self.host.name}: no time was left to open a channel")
        try:
            with self.bounded(left):
                source = ("127.0.0.1", 0) if target is not None else None
                channel = transport.open_channel(kind, target, source, timeout=left)
        except paramiko.ChannelException as error:  # refused by the host or by whom it asked
            raise TransientError(f"{self.host.name}: {_spoken(error)}") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            self._unanswered(transport, left)
            raise TransientError(f"{self.host.name}: {_spoken(error)}") from error
        self._silences = 0
        return channel

    def _unanswered(self, transport: paramiko.Transport, waited: float) -> None:
        self._silences += 1
        if transport.is_active() and (waited >= PATIENT or self._silences >= 3):
            self._silent()

    def _connected(self, end: float) -> paramiko.Transport:
        transport = self._transport
        if transport is not None and transport.is_active():
            return transport
        self._fail_fast()
        if not self._lock.acquire(timeout=max(0.0, end - time.monotonic())):
            raise TransientError(f"{self.host.name}: still connecting")
        try:
            transport = self._transport
            if transport is None or not transport.is_active():
                self._fail_fast()
                transport = self._reconnect(end)
            return transport
        finally:
            self._lock.release()

    def _fail_fast(self) -> None:
        failure = self._failure
        left = failure.until - time.monotonic() if failure is not None else 0.0
        if failure is not None and left > 0:
            raise type(failure.error)(f"{failure.error} (tried again in {left:.1f} s)")

    def _reconnect(self, end: float) -> paramiko.Transport:
        self.drop()
        limit = min(self._access.connect_limit, end - time.monotonic())
        try:
            transport = self._connect(max(0.1, limit))
        except HoldfastError as error:
            self._fail(error)
            raise
        self._transport, self._failure, self._silences = transport, None, 0
        return transport

    def _fail(self, error: HoldfastError) -> None:
        before = self._failure.pause if self._failure is not None else self._access.pause_first / 2
        pause = min(before * 2, self._access.pause_most)
        # jitter: a cluster that comes back must not be met by all at the same instant
        until = time.monotonic() + pause * random.uniform(0.5, 1.0)
        self._failure = _Failure(error, until, pause)

    def _connect(self, limit: float) -> paramiko.Transport:
        name, end = self.host.name, time.monotonic() + limit
        transport: paramiko.Transport | None = None
        try:
            sock = self._dial(limit)
            transport = paramiko.Transport(sock, disabled_algorithms=DISABLED)
            left = max(0.1, end - time.monotonic())
            transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = left
            transport.set_log_channel(QUIET.name)
            with self._dog.alarm(left + GRACE, transport.close):
                self._shake_hands(transport, left)
                self._log_in(transport)
        except HoldfastError:
            _close(transport)
            raise
        except paramiko.AuthenticationException as error:
            _close(transport)
            raise TransientError(
                f"{name}: {self._access.user} is not let in: {_spoken(error)}"
            ) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            _close(transport)
            raise TransientError(f"{name}: cannot connect: {_spoken(error)}") from error
        if hasattr(transport, "_active_check_timeout"):  # fewer wake-ups of an idle connection
            transport._active_check_timeout = IDLE_POLL
            with suppress(AttributeError, OSError):
                transport.sock.settimeout(IDLE_POLL)
        return transport

    def _shake_hands(self, transport: paramiko.Transport, limit: float) -> None:
        kinds = self._keys.types(self.host.host)
        if kinds:  # ask for the kind of key that is pinned, or another kind would look changed
            options = transport.get_security_options()
            wanted = [one for one in options.key_types if _plain(one) in kinds]
            options.key_types = tuple(wanted) or options.key_types
        transport.start_client(timeout=limit)
        key = transport.get_remote_server_key()
        self._keys.check(self.host.host, key.get_name(), key.asbytes())

    def _log_in(self, transport: paramiko.Transport) -> None:
        refused: Exception | None = None
        for key in self._access.identity.load():
            try:
                transport.auth_publickey(self._access.user, key)
            except paramiko.AuthenticationException as error:
                refused = error
            else:
                if transport.is_authenticated():
                    return
        raise refused or PermanentError(f"{self.host.name}: more than a key is asked for")


def _plain(algorithm: str) -> str:
    """Return the type of key behind a signature algorithm: rsa-sha2-512 is made with ssh-rsa."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2") else algorithm


def _close(transport: paramiko.Transport | None) -> None:
    if transport is not None:
        with suppress(Exception):
            transport.close()
            transport.sock.close()


def _spoken(error: BaseException) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return "no answer in time"
    if isinstance(error, EOFError):
        return "the connection was closed"
    return str(error) or type(error).__name__
