from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.fleet import ceph as cephs
from tests.fleet.ceph import Ceph
from tests.fleet.hypervisor import GATEWAY
from tests.fleet.rack import Rack, own_network, rack
from tests.ledger.conftest import postgres
from tests.runtime import s3_servers
from tests.system.conftest import make_fleet
from tests.transports.sshd import SSHD

__all__ = ["make_fleet", "postgres"]

HOSTS = 6


@pytest.fixture(scope="session", autouse=True)
def loopback() -> None:
    """In a network of our own even the loopback card is down at first.

    Some programs (Slurm's) want one address beside it before they look up any.
    """
    if os.getuid() != 0 or not own_network():
        return
    for words in (
        "link set lo up",
        "link add hf0 type bridge",
        "addr add 10.78.0.1/24 dev hf0",
        "link set hf0 up",
    ):
        subprocess.run(["ip", *words.split()], check=True)


@pytest.fixture(scope="session")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """Start the rack of real hosts, in a network of our own."""
    if os.getuid() != 0 or not own_network():
        pytest.skip("run by `make test-fleet`, as root in a network namespace of its own")
    if SSHD is None or shutil.which("bridge") is None:
        pytest.skip("needs openssh-server and iproute2")
    with rack(tmp_path_factory.mktemp("rack") / "r", HOSTS) as made:
        yield made


@pytest.fixture(scope="session")
def ceph(lan: Rack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """Start a real Ceph with its gateway on the rack's network."""
    lacks = cephs.missing()
    if lacks is not None:
        pytest.skip(lacks)
    made = Ceph(tmp_path_factory.mktemp("ceph"), address=GATEWAY)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def vault_url(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a bucket; whoever opens it here has the keys in the environment."""
    for name, value in credentials(ceph).items():
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(s3_servers.KEYS, name, value)
    return s3_servers.bucket(ceph.endpoint)


def credentials(ceph: Ceph) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": ceph.access, "AWS_SECRET_ACCESS_KEY": ceph.secret}
