"""A TCP connection fit for SSH: answers at once, and notices a peer that is silently gone.

paramiko sets neither TCP_NODELAY (every command then costs a delayed acknowledgement, about 40 ms)
nor anything that notices a silent partition (its keep-alive does not wait for an answer), so the
socket is made here. A dead peer breaks the connection within 25 s idle, within 20 s while sending.
"""

from __future__ import annotations

import socket

KEEPALIVE_IDLE = 10  #: seconds of silence before the first probe
KEEPALIVE_EVERY = 5  #: seconds between probes
KEEPALIVE_PROBES = 3
USER_TIMEOUT = 20_000  #: milliseconds that sent bytes may stay unacknowledged


def connect(address: str, port: int, limit: float) -> socket.socket:
    """Open the connection within `limit` seconds; raises `OSError`."""
    made = socket.create_connection((address, port), timeout=limit)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
    except OSError:
        made.close()
        raise
    return made
