"""Writers that race for one register on a real S3 gateway: never two of them commit."""

from __future__ import annotations

import pytest

from tests.runtime.test_s3 import double_commits

pytestmark = [pytest.mark.root]


def races(url: str, registers: int) -> int:
    """Let two writers race ten times in each of some registers; return the double commits."""
    return sum(
        double_commits(url.replace("/run/1", f"/run/{n}"), races=10, writers=2)
        for n in range(registers)
    )


def test_fifty_races_on_the_gateway_make_no_double_commit(vault_url: str) -> None:
    assert races(vault_url, 5) == 0


@pytest.mark.soak
def test_a_thousand_races_on_the_gateway_make_no_double_commit(vault_url: str) -> None:
    assert races(vault_url, 100) == 0
