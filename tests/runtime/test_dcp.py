"""Sharded checkpoints: FSDP2 on two gloo ranks, saved, verified, loaded at world size 1 and 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.runtime import vault
from orchestrator.runtime.manifests import Layout
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from orchestrator.runtime.vault import VerificationError
from orchestrator.runtime.weights import weights_digest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ranks(verb: str, url: Path, world: int) -> list[subprocess.CompletedProcess[str]]:
    """Run one process for each rank to its end."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    argv = [sys.executable, "-m", "tests.runtime.sharded", verb, str(url)]
    started = [
        subprocess.Popen(
            argv,
            env={**env, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=100) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(argv, process.returncode, *output)
        for process, output in zip(started, said, strict=True)
    ]


def said(verb: str, url: Path, world: int) -> list[str]:
    """Return what rank 0 printed: digest of the weights, the next loss, the commit."""
    done = ranks(verb, url, world)
    assert [one.returncode for one in done] == [0] * world, done
    return done[0].stdout.split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    url = tmp_path_factory.mktemp("vault")
    return url, said("train", url, 2)


@pytest.mark.parametrize("world", [1, 2])
def test_what_two_ranks_saved_is_loaded_at_any_world_size(
    trained: tuple[Path, list[str]], world: int
) -> None:
    url, (digest, loss, _) = trained
    assert said("load", url, world)[:2] == [digest, loss]


def test_the_digest_of_a_sharded_checkpoint_is_that_of_the_full_weights(
    trained: tuple[Path, list[str]],
) -> None:
    url, (digest, _, seq) = trained
    assert weights_digest(str(url)) == digest
    assert weights_digest(str(url), int(seq)) == digest


def test_each_rank_wrote_its_own_part_and_all_verify(trained: tuple[Path, list[str]]) -> None:
    url, _ = trained
    opened = vault.open_vault(str(url))
    (commit,) = opened.register.read().commits
    manifest = opened.manifest(commit)
    assert manifest.layout is Layout.SHARDED
    assert manifest.world_size == 2
    assert [(part.kind, part.rank) for part in manifest.parts] == [
        ("shard", 0),
        ("shard", 1),
        ("index", 0),
    ]
    assert opened.verify(commit).ok


def test_a_flipped_bit_in_a_shard_is_found_before_it_is_loaded(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """torch's own DCP loads it silently."""
    url, _ = trained
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(url), str(copy)], check=True)
    shard = next((copy / "parts").rglob("shard.00001"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(VerificationError, match=r"shard\.00001"):
        weights_digest(str(copy))
    done = ranks("load", copy, 2)
    assert all(one.returncode != 0 for one in done)
    assert all("did not verify" in one.stderr for one in done), "every rank says why"


def test_a_rank_whose_disk_is_full_makes_nothing_visible_and_training_goes_on(
    tmp_path: Path,
) -> None:
    digest, _, commit = said("fail", tmp_path, 2)
    assert len(digest) == 64
    assert commit == "None"
    assert Register(open_store(str(tmp_path))).read().commits == ()


def test_every_rank_of_a_fenced_gang_ends_with_93(tmp_path: Path) -> None:
    done = ranks("stale", tmp_path, 2)
    assert [one.returncode for one in done] == [93, 93], done
    assert len(Register(open_store(str(tmp_path))).read().commits) == 1
