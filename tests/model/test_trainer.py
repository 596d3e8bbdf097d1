"""Training: it learns, and it repeats itself to the bit."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.evaluate import evaluate
from model.settings import Settings, parse
from model.trainer import Place, Trainer

FEW = ["--preset", "demo", "--steps", "8", "--batch", "6", "--subset", "food"]

#: Trains 4 steps and saves each; or loads what was saved after 2 and trains the others.
RANK = """
import sys, torch
from model.settings import parse
from model.trainer import Place, Trainer
torch.set_num_threads(1)
rank, world, folder, start = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/store{start}", rank=rank, world_size=world
)
trainer = Trainer(parse(sys.argv[5:]), Place(rank, world))
if start:
    trainer.load(torch.load(f"{folder}/{start}.pt"))
while trainer.step < 4:
    trainer.advance()
    if rank == 0 and not start:
        torch.save(trainer.state(), f"{folder}/{trainer.step}.pt")
if rank == 0:
    torch.save(trainer.state(), f"{folder}/end-from-{start}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def settings(*extra: str) -> Settings:
    return parse([*FEW, *extra])


def trained(steps: int, *extra: str) -> Trainer:
    trainer = Trainer(settings(*extra), Place())
    while trainer.step < steps:
        trainer.advance()
    return trainer


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_few_steps_reduce_the_loss() -> None:
    trainer = Trainer(settings("--batch", "16", "--steps", "40", "--lr", "0.012"), Place())
    first = trainer.advance().loss
    while trainer.step < 16:
        trainer.advance()
    assert first > 8.0  # a guess among 4,096 tokens costs 8.3 nats
    assert trainer.loss < 0.75 * first


def test_two_runs_are_the_same_to_the_bit_and_another_seed_is_not() -> None:
    one, same, other = trained(3), trained(3), trained(3, "--data-seed", "1")
    assert equal(one.state()["model"], same.state()["model"])
    assert not equal(one.state()["model"], other.state()["model"])


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one() -> None:
    halfway = trained(2)
    saved, facts = copy.deepcopy(halfway.state()), halfway.attestation()
    resumed = Trainer(settings("--seed", "0"), Place())
    resumed.load(saved)
    assert resumed.attestation() == facts
    while halfway.step < 4:
        halfway.advance()
        resumed.advance()
    assert equal(resumed.state()["model"], halfway.state()["model"])
    assert equal(resumed.state()["optimizer"], halfway.state()["optimizer"])
    assert resumed.attestation() == halfway.attestation()
    assert resumed.loss == halfway.loss


def test_the_attested_facts_move_with_the_step_and_know_the_settings() -> None:
    early, late = trained(1).attestation(), trained(2).attestation()
    assert (early["cursor"], late["cursor"]) == (6, 12)
    for fact in ("rng", "tokens", "learning_rate"):
        assert early[fact] != late[fact]
    assert early["config"] == late["config"] != trained(1, "--lr", "0.001").attestation()["config"]


def test_a_gang_of_two_restarted_from_a_checkpoint_repeats_the_weights(tmp_path: Path) -> None:
    run_gang(tmp_path, start=0)
    run_gang(tmp_path, start=2)
    whole, resumed = (torch.load(tmp_path / f"end-from-{start}.pt") for start in (0, 2))
    assert equal(whole["model"], resumed["model"])
    assert equal(whole["optimizer"], resumed["optimizer"])
    alone = trained(4).state()["model"]  # the same samples; sums in another order
    assert all(torch.allclose(alone[n], whole["model"][n], atol=1e-3) for n in alone)


def run_gang(folder: Path, start: int) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(rank), "2", str(folder), str(start), *FEW], env=env)
        for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=60) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def test_evaluation_decodes_text_for_every_sprite_asked_for() -> None:
    trainer = Trainer(settings(), Place())
    score = evaluate(trainer.model, trainer.items, count=5, data_seed=0)
    assert score.sprites == 5
    assert 0.0 <= score.exact_augmented <= 1.0
    assert evaluate(trainer.model, trainer.items[:2], 5, 0).sprites == 2
