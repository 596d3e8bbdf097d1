"""What holdfast.yaml may say of hosts that are nodes of a Ray cluster, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.daemon.sites import ssh_fleet
from orchestrator.errors import UserError
from tests.config.test_ssh_clusters import KEY, load
from tests.hostile import HOSTILE

HEAD = f'{{name: head, address: 10.0.0.9, host_keys: ["{KEY}"]}}'


def ray(part: str) -> str:
    return f"{{name: a, provider: ssh, engine: ray, nodes: [m1, m2], ray: {{{part}}}}}"


def test_rays_head_is_one_of_the_nodes_or_a_host_beside_them(tmp_path: Path) -> None:
    inside = load(tmp_path, ray("token: {env: T}, head: m2")).clusters[0]
    beside = load(tmp_path, ray(f"token: {{env: T}}, head: {HEAD}")).clusters[0]
    assert inside.ray is not None
    assert inside.ray.head is not None
    assert (inside.engine_name, inside.ray.head.name) == ("ray", "m2")
    assert beside.node_names == ("m1", "m2"), "and no job is placed on its head"
    fleet = ssh_fleet(beside)
    fleet.close()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("", "token"),
        ("token: s3cr3t", "never written"),
        ("token: {env: T}, resources: {}", "at least one resource"),
        ("token: {env: T}, resources: {CPU: 0}", "above 0"),
        ("token: {env: T}, resources: {CPU: .nan}", "finite number"),
        ("token: {env: T}, resources: {CPU: .inf}", "finite number"),
        ("token: {env: T}, python: ''", "python"),
        ("token: {env: T}, port: 70000", "port"),
        ("token: {env: T}, linger: soon", "duration"),
        ("token: {env: T}, dashboard: 0.0.0.0", "dashboard"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, part: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        load(tmp_path, ray(part))
    assert "s3cr3t" not in str(told.value)


@pytest.mark.parametrize(
    "cluster",
    [
        "{name: a, provider: ssh, engine: ray, nodes: [m]}",
        "{name: a, provider: ssh, nodes: [m], ray: {token: {env: T}}}",
        "{name: a, provider: local, nodes: [m], ray: {token: {env: T}}}",
    ],
)
def test_the_engine_and_its_part_belong_together(tmp_path: Path, cluster: str) -> None:
    with pytest.raises(UserError, match="belong together"):
        load(tmp_path, cluster)


#: what YAML takes between quotes; slashes and dots may be part of a name: nvidia.com/gpu
WORDS = [one for one in HOSTILE if one.isprintable() and "'" not in one and one != "a/../../b"]


@pytest.mark.parametrize("word", WORDS, ids=range(len(WORDS)))
def test_no_hostile_word_names_a_resource(tmp_path: Path, word: str) -> None:
    with pytest.raises(UserError, match=r"resource|not YAML"):
        load(tmp_path, ray(f"token: {{env: T}}, resources: {{'{word}': 1}}"))
