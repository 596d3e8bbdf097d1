"""Which network card has an address: ranks are told to talk over the cluster's own.

Without it gloo asks what the host's own name resolves to, which on many rented machines is a
loopback address, and no other node can connect.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Mapping

_SIOCGIFADDR = 0x8915  #: ioctl(2): the IPv4 address of a card


def card_of(address: str) -> str | None:
    """Return the name of the card with this IPv4 address; None if it is loopback or unknown."""
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError:
        return None
    if wanted.is_loopback:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # a card without an IPv4 address
                continue
            if found[20:24] == wanted.packed:
                return name
    return None


def variables(address: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return what makes gloo and NCCL use the card of `address`, unless they were told already."""
    card = card_of(address)
    if card is None:
        return {}
    told = {"GLOO_SOCKET_IFNAME": card, "NCCL_SOCKET_IFNAME": f"={card}"}
    return {name: value for name, value in told.items() if name not in given}
