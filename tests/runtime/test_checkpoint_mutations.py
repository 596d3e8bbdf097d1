"""Whatever is done to a checkpoint, it is refused or stepped over; a good one never is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.runtime import snapshots, surroundings
from orchestrator.runtime.lineage import Fence
from orchestrator.runtime.manifests import AttestationError
from orchestrator.runtime.register import Register, new_nonce
from orchestrator.runtime.training import Run
from orchestrator.runtime.vault import Vault
from tests.runtime.stores import MemoryStore

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

SEEDS = 25  #: of each kind of damage


def facts(step: int) -> dict[str, Any]:
    return {"learning_rate": 0.1 / step, "tokens": 8 * step, "cursor": step, "config": 1, "rng": 2}


def state(step: int) -> dict[str, Any]:
    dice = torch.Generator().manual_seed(step)
    model = {"w": torch.rand(50, generator=dice), "mask": torch.tensor([0.0, float("-inf")])}
    return {"model": model, "optimizer": {"m": torch.rand(50, generator=dice), "step": step}}


def new_run(store: MemoryStore) -> Run:
    return Run(surroundings.read({}), Vault(store, Register(store)), keep=10)


def saved(*steps: int) -> tuple[MemoryStore, Run]:
    """Return a vault with commits of some steps, and the run that made them."""
    store = MemoryStore()
    run = new_run(store)
    for step in steps:
        run.save(step, state(step), **facts(step))
        run.close()
    assert run.last_commit is not None
    return store, run


def parts(store: MemoryStore, step: int) -> list[str]:
    return sorted(
        key for key in store.objects if key.startswith("parts/") and f"-{step:08d}-" in key
    )


def manifest(store: MemoryStore, step: int) -> str:
    keys = [key for key in store.objects if key.startswith("manifests/")]
    return next(key for key in keys if f"-{step:08d}-" in key)


def flip_a_bit(store: MemoryStore, dice: random.Random) -> None:
    key = dice.choice([*parts(store, 20), manifest(store, 20)])
    data = bytearray(store.objects[key])
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    store.objects[key] = bytes(data)


def truncate(store: MemoryStore, dice: random.Random) -> None:
    key = dice.choice(parts(store, 20))
    store.objects[key] = store.objects[key][: -dice.randrange(1, len(store.objects[key]))]


def swap_parts(store: MemoryStore, _: random.Random) -> None:
    one, two = parts(store, 20)
    store.objects[one], store.objects[two] = store.objects[two], store.objects[one]


def stale_manifest(store: MemoryStore, _: random.Random) -> None:
    store.objects[manifest(store, 20)] = store.objects[manifest(store, 10)]


def mix_steps(store: MemoryStore, dice: random.Random) -> None:
    number = dice.randrange(2)
    store.objects[parts(store, 20)[number]] = store.objects[parts(store, 10)[number]]


def mix_steps_in_the_manifest(store: MemoryStore, dice: random.Random) -> None:
    body = json.loads(store.objects[manifest(store, 20)])
    other = json.loads(store.objects[manifest(store, 10)])
    number = dice.randrange(2)
    body["parts"][number] = other["parts"][number]
    store.objects[manifest(store, 20)] = json.dumps(body).encode()


def part_of_another_run(store: MemoryStore, dice: random.Random) -> None:
    other, _ = saved(10, 20)
    other.objects[parts(other, 20)[0]] = bytes(snapshots.to_bytes(state(999)["model"]))
    number = dice.randrange(2)
    store.objects[parts(store, 20)[number]] = other.objects[parts(other, 20)[0]]


def half_an_upload(store: MemoryStore, dice: random.Random) -> None:
    del store.objects[dice.choice([*parts(store, 20), manifest(store, 20)])]


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        truncate,
        swap_parts,
        stale_manifest,
        mix_steps,
        mix_steps_in_the_manifest,
        part_of_another_run,
        half_an_upload,
    ],
)
def test_damage_is_stepped_over(damage: Callable[[MemoryStore, random.Random], None]) -> None:
    for seed in range(SEEDS):
        store, _ = saved(10, 20)
        damage(store, random.Random(seed))
        loaded = new_run(store).resume()
        assert loaded is not None
        assert loaded.step == 10, f"{damage.__name__}, seed {seed}"
        assert torch.equal(loaded.state["model"]["w"], state(10)["model"]["w"])


def test_a_nan_is_never_committed() -> None:
    for seed in range(SEEDS):
        dice = random.Random(seed)
        store, run = saved(10)
        bad = state(20)
        target = dice.choice([bad["model"]["w"], bad["optimizer"]["m"]])
        target[dice.randrange(50)] = float("nan")
        run.save(20, bad, **facts(20))
        run.close()
        loaded = new_run(store).resume()
        assert loaded is not None
        assert loaded.step == 10


def test_a_nan_that_was_committed_by_another_program_is_stepped_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, run = saved(10)
    bad = state(20)
    bad["model"]["w"][3] = float("nan")
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "find_nan", lambda _: None)
        run.save(20, bad, **facts(20))
        run.close()
    loaded = new_run(store).resume()
    assert loaded is not None
    assert loaded.step == 10


@pytest.mark.parametrize("field", ["learning_rate", "tokens", "cursor", "config", "rng"])
def test_a_wrong_fact_after_a_resume_is_refused(field: str) -> None:
    store, _ = saved(10, 20)
    run = new_run(store)
    assert run.resume() is not None
    run.attest(step=20, **facts(20))
    with pytest.raises(AttestationError, match=field):
        run.attest(step=20, **{**facts(20), field: 0.5})


def test_a_commit_under_an_older_token_is_void() -> None:
    store, run = saved(10)
    register = Register(store)
    made = register.append(lambda seq: Fence(seq, new_nonce(), 7, 2, 0.0), register.read())
    assert isinstance(made, Fence)
    run.save(20, state(20), **facts(20))
    with pytest.raises(SystemExit) as ended:  # exit 93
        run.close()
    assert ended.value.code == 93
    low = register.append(lambda seq: Fence(seq, new_nonce(), 6, 3, 0.0), register.read())
    assert low in [void.record for void in register.read().void]
    assert [commit.step for commit in register.read().commits] == [10]


def test_500_good_ones_are_all_accepted() -> None:
    store = MemoryStore()
    run = new_run(store)
    for step in range(1, 501):
        run.save(step, state(step), **facts(step))
        run.close()
        assert run.last_commit is not None
        if step % 5 == 0:
            again = new_run(store)
            loaded = again.resume()
            assert loaded is not None
            assert loaded.step == step
            again.attest(step=step, **facts(step))
    lineage = Register(store).read()
    assert len(lineage.commits) == 500
    assert not lineage.void
