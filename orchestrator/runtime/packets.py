"""JSON messages over a Unix socket pair, with file descriptors beside them.

The agent speaks so with its warm parent and with its ranks. SOCK_SEQPACKET: a message arrives whole
or not at all, and the end of the other side is seen as the end of the line. Messages larger than a
packet may be are refused by the sender.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

VARIABLE = "HOLDFAST_CONTROL_FD"  #: number of a rank's end of its line to the agent
PACKET_MAX = 131_072  #: bytes of one message
DESCRIPTORS_MAX = 64


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends, neither inheritable."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(line: socket.socket, body: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message; raises `OSError` if the other side is gone or does not read."""
    data = json.dumps(body).encode()
    if len(data) > PACKET_MAX:
        raise OSError(f"a message of {len(data)} bytes; {PACKET_MAX} is the most")
    ancillary = []
    if descriptors:
        numbers = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
    line.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(line: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return one message and its descriptors (close-on-exec); None at the end of the line.

    Raises `BlockingIOError` if a non-blocking line has none. What is no JSON object is an empty
    message: whoever sent it is a stranger.
    """
    space = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    try:
        data, ancillary, _, _ = line.recvmsg(PACKET_MAX, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None, []
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(content) - len(content) % descriptors.itemsize
            descriptors.frombytes(content[:whole])
    if not data:
        close(descriptors)
        return None, []
    return _body(data), list(descriptors)


def _body(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def close(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
