from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transports.sshd import SSHD, Sshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    if SSHD is None:
        pytest.skip("no sshd is installed here (openssh-server)")
    server = Sshd(tmp_path / "sshd")
    server.start()
    yield server
    server.stop()
