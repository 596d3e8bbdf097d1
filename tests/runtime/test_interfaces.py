from __future__ import annotations

import socket

import pytest

from orchestrator.runtime.interfaces import card_of, variables


def an_address() -> str:
    """Return an address of this computer that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this computer has no network card")
        address: str = probe.getsockname()[0]
        return address


def test_an_address_is_found_on_its_card() -> None:
    card = card_of(an_address())
    assert card in {name for _, name in socket.if_nameindex()}
    assert variables(an_address(), {}) == {
        "GLOO_SOCKET_IFNAME": card,
        "NCCL_SOCKET_IFNAME": f"={card}",
    }


def test_what_somebody_chose_already_stays() -> None:
    assert "GLOO_SOCKET_IFNAME" not in variables(an_address(), {"GLOO_SOCKET_IFNAME": "ib0"})


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.9", "::1", "node-1", ""])
def test_loopback_strangers_and_names_have_no_card(address: str) -> None:
    assert card_of(address) is None
    assert variables(address, {}) == {}
