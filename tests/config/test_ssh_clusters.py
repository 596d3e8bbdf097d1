"""What holdfast.yaml may say of hosts, and what it may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.config import Settings, load_settings
from orchestrator.errors import UserError
from tests.hostile import HOSTILE

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFoeblaA5Uo63yYlvdcL4sm/serPqcCuQz7tyrEWshOs"


def load(folder: Path, cluster: str) -> Settings:
    path = folder / "holdfast.yaml"
    path.write_text(f"clusters:\n- {cluster}\n")
    return load_settings(path)


def test_hosts_may_be_names_or_machines(tmp_path: Path) -> None:
    cluster = load(
        tmp_path,
        f"{{name: a, provider: ssh, sku: h100, nodes: [m1, {{name: m2, address: 10.0.0.2, "
        f'host_keys: ["{KEY} root@m2"], serials: [S1]}}]}}',
    ).clusters[0]
    assert cluster.node_names == ("m1", "m2")
    assert cluster.machines[1].host_keys == (KEY,)
    assert cluster.engine_name == "ssh"


def test_the_private_folder_is_in_the_users_home_unless_it_is_named(tmp_path: Path) -> None:
    cluster = load(tmp_path, "{name: a, provider: ssh, nodes: [m], ssh: {user: train}}").clusters[0]
    assert cluster.ssh is not None
    assert cluster.ssh.node_folder == Path("/home/train/.holdfast")


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ("{name: a, provider: ssh, nodes: [{name: m, address: '-oProxyCommand=x'}]}", "host name"),
        ("{name: a, provider: ssh, nodes: [{name: m, host_keys: [ssh-dss AAAA]}]}", "host key"),
        ("{name: a, provider: ssh, nodes: [{name: m, host_keys: [ssh-ed25519 AAAA]}]}", "host key"),
        ("{name: a, provider: ssh, nodes: [m], ssh: {folder: ../x}}", "absolute path"),
        ("{name: a, provider: ssh, nodes: [m], ssh: {folder: '/x/../y'}}", "absolute path"),
        ("{name: a, provider: ssh, nodes: [m], ssh: {passphrase: {env: X}}}", "belongs to `key`"),
        ("{name: a, provider: ssh, nodes: [m], ssh: {passphrase: secret}}", "never written"),
        ("{name: a, provider: ssh, nodes: [m], ssh: {reboot: reboot}}", "list"),
        ("{name: a, provider: local, nodes: [m], ssh: {user: x}}", "no meaning"),
        ("{name: a, provider: local, nodes: [{name: m, address: h}]}", "no meaning"),
        ("{name: a, provider: ssh, nodes: [m], engine: local}", "cannot start agents there"),
        ("{name: a, provider: ssh, nodes: [m], engine: shh}", "did you mean 'ssh'"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, cluster: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(tmp_path, cluster)


@pytest.mark.parametrize("word", [word for word in HOSTILE if len(word) < 300])
@pytest.mark.parametrize("key", ["address", "cluster_address", "name"])
def test_no_hostile_name_or_address_gets_in(tmp_path: Path, key: str, word: str) -> None:
    machine = {"name": "m", key: word}
    cluster = f"{{name: a, provider: ssh, nodes: [{json.dumps(machine)}]}}"
    with pytest.raises(UserError):
        load(tmp_path, cluster)
