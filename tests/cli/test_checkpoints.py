from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.runtime.store import open_store
from tests.cli.conftest import Holdfast
from tests.runtime.vaults import Story


@pytest.fixture
def vault(home: Path) -> Path:
    told = Story(open_store(str(home / "vault")))
    told.fence()
    told.generation()
    told.commit(10, b"ten")
    told.commit(20, b"twenty")
    return home / "vault"


def damage(vault: Path, data: bytes) -> None:
    part = next(path for path in vault.rglob("*") if path.is_file() and path.read_bytes() == data)
    part.write_bytes(data[:-1] + b"?")


@pytest.mark.parametrize("url", ["vault", "{vault}", "file://{vault}"])
def test_a_vault_is_named_by_its_folder_or_url(holdfast: Holdfast, vault: Path, url: str) -> None:
    result = holdfast("checkpoint", "list", url.format(vault=vault), "-o", "json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["step"], row["counts"], row["state"]) for row in rows] == [
        (10, True, "present"),
        (20, True, "present"),
    ]


def test_what_verifies_is_said(holdfast: Holdfast, vault: Path) -> None:
    result = holdfast("checkpoint", "verify", "vault")
    assert result.exit_code == 0, result.stderr
    assert "2 commits verify" in result.stderr


def test_a_damaged_part_fails_and_is_named(holdfast: Holdfast, vault: Path) -> None:
    damage(vault, b"twenty" * 10)
    result = holdfast("checkpoint", "verify", "vault", "-o", "json")
    assert result.exit_code == 1
    ten, twenty = json.loads(result.stdout)
    assert (ten["state"], twenty["state"]) == ("ok", "damaged")
    assert "other bytes" in twenty["problems"][0]
    only = holdfast("checkpoint", "verify", "vault", "--seq", str(ten["seq"]))
    assert only.exit_code == 0


def test_a_commit_that_is_not_there_exits_with_2(holdfast: Holdfast, vault: Path) -> None:
    assert holdfast("checkpoint", "verify", "vault", "--seq", "99").exit_code == 2


def test_an_empty_folder_holds_no_checkpoints(holdfast: Holdfast, home: Path) -> None:
    (home / "empty").mkdir()
    for verb in ("list", "verify"):
        assert holdfast("checkpoint", verb, "empty").exit_code == 2


@pytest.mark.torch
def test_the_digest_is_that_of_the_weights(holdfast: Holdfast, home: Path) -> None:
    torch = pytest.importorskip("torch")
    from orchestrator.runtime import surroundings
    from orchestrator.runtime.training import Run
    from orchestrator.runtime.vault import open_vault
    from orchestrator.runtime.weights import digest

    tensors = {"w": torch.arange(6.0).reshape(2, 3)}
    facts = {"learning_rate": 0, "tokens": 0, "cursor": 0, "config": 0, "rng": 0}
    run = Run(surroundings.read({}), open_vault(str(home / "trained")))
    run.save(1, {"model": tensors}, **facts)
    run.close()
    result = holdfast("checkpoint", "digest", "trained")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == digest(tensors)
