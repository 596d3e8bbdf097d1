"""All SSH connections of one cluster: commands, tunnels, and what they may cost.

Every command has a limit on both ends: here a deadline, there timeout(1), since a command goes on
when its connection breaks. Only the beginning of an output is kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import paramiko

from orchestrator.errors import PermanentError, TransientError
from orchestrator.transports.ssh import sockets
from orchestrator.transports.ssh.access import Access, HostAddress
from orchestrator.transports.ssh.hostkeys import PinnedKeys
from orchestrator.transports.ssh.link import Dial, SshLink
from orchestrator.transports.ssh.quoting import command_line, limited
from orchestrator.transports.ssh.watchdog import Watchdog
from providers.api import Completed

OUTPUT_MAX = 4_000_000  #: bytes kept of each output; a node cannot fill our memory
OUTPUT_READ_MAX = 64_000_000  #: bytes read of both; then the command is given up
SPOKEN = 0.15  #: seconds of quiet after a command's end, if something keeps its output open
TIMED_OUT = frozenset({124, 137})  #: timeout(1) says so
NOT_FOUND = 127
CHUNK = 65_536


class SshFleet:
    """The hosts of one cluster."""

    def __init__(
        self,
        hosts: Mapping[str, HostAddress],
        access: Access,
        keys: PinnedKeys,
        jump: tuple[HostAddress, Access] | None = None,
    ) -> None:
        """Remember the hosts by node; nothing is opened yet."""
        self._dog = Watchdog()
        self._jump: SshLink | None = None
        if jump is not None:
            host, through = jump
            self._jump = SshLink(host, through, keys, _dialler(host, None), self._dog)
        self._links = {
            node: SshLink(host, access, keys, _dialler(host, self._jump), self._dog)
            for node, host in hosts.items()
        }

    def run(self, node: str) -> SshRun:
        """Return the transport of one node; raises `PermanentError` if it is not one of ours."""
        return SshRun(self._link(node))

    def connect(self, node: str, address: str, port: int, limit: float) -> paramiko.Channel:
        """Return a tunnel to a port that the node reaches; raises `TransientError`."""
        return self._link(node).tunnel(address, port, limit)

    def close(self) -> None:
        """Close every connection."""
        for link in [*self._links.values(), *([self._jump] if self._jump else [])]:
            link.drop()
        self._dog.close()

    def _link(self, node: str) -> SshLink:
        link = self._links.get(node)
        if link is None:
            raise PermanentError(f"there is no host for node {node!r:.60}")
        return link


def _dialler(host: HostAddress, jump: SshLink | None) -> Dial:
    if jump is None:
        return lambda limit: sockets.connect(host.address, host.port, limit)
    return lambda limit: jump.tunnel(host.address, host.port, limit)


@dataclass(slots=True)
class SshRun:
    """Runs argv on one host; what providers and engines are handed."""

    link: SshLink
    _env: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
        """Run `argv` for at most `limit` seconds.

        Raises `TransientError` if the host cannot be reached or the limit passed, `HostKeyError`
        if it shows a key that is not pinned, `PermanentError` if the program is not there.
        """
        line, end = command_line(limited(argv, limit)), time.monotonic() + limit
        name = self.link.host.name
        with self.link.session(limit) as channel:
            try:
                with self.link.bounded(end - time.monotonic()):
                    channel.exec_command(line)
                heard = _Listening(channel, end)
                heard.send(stdin, self.link)
                code = heard.to_the_end()
            except TimeoutError as error:
                raise TransientError(f"{name}: no answer within {limit:g} s") from error
            except (paramiko.SSHException, EOFError, OSError) as error:
                raise TransientError(f"{name}: the connection was lost: {error}") from error
        if code in TIMED_OUT and time.monotonic() >= end - 0.5:
            raise TransientError(f"{name}: no answer within {limit:g} s")
        if code == NOT_FOUND and not heard.out:
            raise PermanentError(f"{name}: cannot run {argv[0]}: {_words(heard.err)}")
        if code < 0:
            raise TransientError(f"{name}: the connection was lost")
        return Completed(code, bytes(heard.out), bytes(heard.err))


@dataclass(slots=True)
class _Listening:
    """The two outputs of one command, read until it ends."""

    channel: paramiko.Channel
    end: float  #: monotonic
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    read: int = 0

    def send(self, stdin: bytes, link: SshLink) -> None:
        """Give the command its input, then end it."""
        view = memoryview(stdin)
        with link.bounded(self.end - time.monotonic()):
            while len(view) and not self.channel.closed:
                self.channel.settimeout(self._left())
                try:
                    sent = self.channel.send(bytes(view[:CHUNK]))
                except OSError as error:
                    if isinstance(error, TimeoutError):
                        raise
                    break  # it ended without reading all: its exit code says why
                view = view[sent:]
                self._drain()
            self.channel.shutdown_write()

    def to_the_end(self) -> int:
        """Read until the command and its outputs ended; return its exit code.

        A process left behind may keep the outputs open: then a moment of quiet ends them.
        """
        while True:
            ended = self.channel.exit_status_ready()  # asked before: then the quiet came after
            self.channel.settimeout(min(SPOKEN, self._left()))
            try:
                data = self.channel.recv(CHUNK)
            except TimeoutError:
                self._drain()
                if ended:
                    break
                continue
            self._drain()
            if not data:
                break
            self._keep(self.out, data)
        if not self.channel.status_event.wait(self._left()):
            raise TimeoutError
        self._drain()
        return self.channel.recv_exit_status()

    def _drain(self) -> None:
        while self.channel.recv_stderr_ready():
            self._keep(self.err, self.channel.recv_stderr(CHUNK))

    def _keep(self, kept: bytearray, data: bytes) -> None:
        self.read += len(data)
        if self.read > OUTPUT_READ_MAX:
            raise TransientError(f"more than {OUTPUT_READ_MAX} bytes of output; given up")
        kept += data[: max(0, OUTPUT_MAX - len(kept))]

    def _left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _words(err: bytes | bytearray) -> str:
    text = bytes(err[-300:]).decode(errors="replace").strip()
    return "".join(one if one.isprintable() else " " for one in text) or "no such program"


__all__ = ["SshFleet", "SshRun"]
