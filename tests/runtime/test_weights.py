"""The weights digest: equal for equal weights, different for any difference, known from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.runtime import surroundings, weights
from orchestrator.runtime.training import Run
from orchestrator.runtime.vault import VerificationError, open_vault
from orchestrator.runtime.weights import digest, weights_digest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

FACTS: dict[str, Any] = {"learning_rate": 0, "tokens": 0, "cursor": 0, "config": 0, "rng": 0}
DOCUMENT = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def tensors() -> dict[str, Any]:
    torch.manual_seed(1)
    return {
        "b.weight": torch.randn(2, 3),
        "a.weight": torch.randn(3, 2).to(torch.bfloat16),
        "scalar": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
    }


def save(url: Path, *states: dict[str, Any]) -> None:
    run = Run(surroundings.read({}), open_vault(str(url)))
    for step, state in enumerate(states, 1):
        run.save(step, state, **FACTS)
    run.close()


def test_the_order_of_names_and_the_memory_layout_do_not_matter() -> None:
    one = tensors()
    other = dict(reversed([*one.items()]))
    other["b.weight"] = one["b.weight"].t().contiguous().t()
    assert not other["b.weight"].is_contiguous()
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    "change",
    [
        {"b.weight": torch.zeros(2, 3)},
        {"scalar": torch.tensor(7, dtype=torch.int32)},
        {"empty": torch.zeros(4, 0)},
        {"more": torch.zeros(1)},
    ],
    ids=["bytes", "dtype", "shape", "name"],
)
def test_any_difference_shows(change: dict[str, Any]) -> None:
    assert digest(tensors()) != digest({**tensors(), **change})


def test_nested_names_are_joined_and_other_things_left_out() -> None:
    nested = {"layer": {"weight": torch.ones(2)}, "version": 3}
    assert digest(nested) == digest({"layer.weight": torch.ones(2)})


def test_the_digest_needs_no_numpy() -> None:
    value = torch.tensor([1.0, -2.0])
    assert weights.raw(value) == value.numpy().tobytes()


def test_ten_lines_of_python_give_the_same_digest(tmp_path: Path) -> None:
    """The very lines of docs/checkpoints.md."""
    save(tmp_path, {"model": tensors()}, {"model": {**tensors(), "more": torch.ones(1)}})
    script = re.findall(r"```python\n(import hashlib.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == weights_digest(str(tmp_path))


def test_a_commit_may_be_chosen_by_its_seq(tmp_path: Path) -> None:
    first = {"model": {"w": torch.zeros(1)}}
    save(tmp_path, first, {"model": tensors()})
    seq = open_vault(str(tmp_path)).register.read().commits[0].seq
    assert weights_digest(str(tmp_path), seq) == digest(first["model"])
    with pytest.raises(UserError, match="no counted commit 99"):
        weights_digest(str(tmp_path), 99)


def test_a_damaged_checkpoint_has_no_digest(tmp_path: Path) -> None:
    save(tmp_path, {"model": {"w": torch.zeros(1)}}, {"model": tensors()})
    vault = open_vault(str(tmp_path))
    lineage = vault.register.read()
    older, newer = lineage.commits
    part = vault.manifest(newer).parts[0]
    (tmp_path / part.key).write_bytes(b"x" * part.bytes)
    with pytest.raises(VerificationError, match="other bytes"):
        weights_digest(str(tmp_path))
    assert weights_digest(str(tmp_path), older.seq) == digest({"w": torch.zeros(1)})


def test_a_vault_without_weights_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no commit that counts"):
        weights_digest(str(tmp_path))
    save(tmp_path, {"progress": {"step": 1}})
    with pytest.raises(UserError, match="no part of kind 'model'"):
        weights_digest(str(tmp_path))
