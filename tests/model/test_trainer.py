"""Training: it learns, and it repeats itself to the bit."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model import train
from model.curriculum import read
from model.data.loader import Want
from model.evaluate import beyond, evaluate
from model.settings import Settings, parse
from model.trainer import Place, Trainer

FEW = ["--preset", "demo", "--steps", "8", "--batch", "6", "--subset", "food"]

#: One of two ranks: trains 4 steps; then a new trainer continues from what was saved after 2.
RANK = """
import copy, sys, torch
from model.settings import parse
from model.trainer import Place, Trainer
torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
)
whole, resumed = (Trainer(parse(sys.argv[3:]), Place(rank, 2)) for _ in range(2))
while whole.step < 4:
    whole.advance()
    if whole.step == 2:
        saved = copy.deepcopy(whole.state())
resumed.load(saved)
while resumed.step < 4:
    resumed.advance()
torch.save([whole.state(), resumed.state()], f"{folder}/{rank}.pt")
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
    assert early["cursor"] == {"stage": 0, "batch": 2}
    assert late["cursor"] == {"stage": 0, "batch": 3}
    for fact in ("rng", "tokens", "learning_rate"):
        assert early[fact] != late[fact]
    assert early["config"] == late["config"] != trained(1, "--lr", "0.001").attestation()["config"]


def test_a_gang_of_two_repeats_the_weights_from_a_checkpoint(tmp_path: Path) -> None:
    run_gang(tmp_path)
    whole, resumed = torch.load(tmp_path / "0.pt")
    assert equal(whole["model"], resumed["model"])
    assert equal(whole["optimizer"], resumed["optimizer"])
    assert equal(whole["model"], torch.load(tmp_path / "1.pt")[0]["model"])  # ranks agree
    alone = trained(4).state()["model"]  # the same samples; sums in another order
    assert all(torch.allclose(alone[n], whole["model"][n], atol=1e-3) for n in alone)


def run_gang(folder: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(rank), str(folder), *FEW], env=env) for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=90) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def test_evaluation_decodes_text_for_every_sprite_asked_for() -> None:
    trainer = trained(0, "--evaluate", "5")
    said = evaluate(trainer.model, trainer.settings)
    assert said["sprites"] == 5
    assert 0.0 <= said["exact_augmented"] <= 1.0
    assert 0.0 <= said["exact_clean"] <= 1.0


def test_pass_keys_are_asked_for_beyond_what_was_trained() -> None:
    stage = read("passkeys").stages[-1]
    assert max(stage.passkey_lengths) == stage.prompt_max == 192
    assert beyond(stage) == [96, 192, 384, 768]


def test_losses_are_appended_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    few = ["--preset", "demo", "--steps", "2", "--batch", "2", "--subset", "food"]
    assert train.main([*few, "--losses", str(path)]) == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["loss"] > 0.0 and line["cpu_s"] > 0.0 for line in lines)
    assert train.main([*few, "--losses", str(tmp_path)]) == 2


def test_a_skipped_batch_is_never_trained_on_and_the_next_takes_its_place() -> None:
    trainer = trained(0)
    trainer.skipped = [Want(0, 2), Want(0, 4)]
    assert [trainer.batch_of(step).number for step in range(1, 5)] == [1, 3, 5, 6]
    resumed = trained(0)
    resumed.load(copy.deepcopy(trainer.state()))
    assert resumed.batch_of(2) == Want(0, 3)


def test_the_gradient_is_clipped_to_its_highest_norm() -> None:
    free, held = trained(0, "--clip", "1000"), trained(0, "--clip", "0.001")
    norms = [one.advance().norm for one in (free, held)]
    assert norms[0] == pytest.approx(norms[1])
    grown = []
    for one in (free, held):
        gradients = [p.grad for p in one.model.parameters() if p.grad is not None]
        grown.append(sum(float(gradient.norm()) ** 2 for gradient in gradients))
    assert grown[0] ** 0.5 == pytest.approx(norms[0], rel=1e-4)
    assert grown[1] ** 0.5 == pytest.approx(0.001, rel=1e-4)


STAGES = """
[[stage]]
name = "see"
steps = 3
batch = 4
mixture = { pictures = 0.8, names = 0.2 }
subset = "food"

[[stage]]
name = "hear"
steps = 3
batch = 3
mixture = { numbers = 0.5, motions = 0.5 }
learning_rate = 0.002

[[stage]]
name = "remember"
steps = 2
batch = 2
mixture = { passkeys = 1.0 }
prompt_max = 160
passkey_lengths = [80, 160]
rope_base = 80000.0
"""


def staged(folder: Path) -> Settings:
    path = folder / "stages.toml"
    path.write_text(STAGES)
    return parse(["--preset", "demo", "--curriculum", str(path)])


def test_every_stage_can_be_resumed_in_its_middle_and_at_its_ends(tmp_path: Path) -> None:
    wanted = staged(tmp_path)
    whole = Trainer(wanted, Place())
    saved = {}
    while whole.step < wanted.steps:
        whole.advance()
        saved[whole.step] = (copy.deepcopy(whole.state()), whole.attestation())
    for step in (1, 3, 4, 6, 7):  # 3 and 6 end a stage
        resumed = Trainer(wanted, Place())
        resumed.load(saved[step][0])
        assert resumed.attestation() == saved[step][1]
        while resumed.step < wanted.steps:
            resumed.advance()
        assert equal(resumed.state()["model"], whole.state()["model"]), step
        assert equal(resumed.state()["optimizer"], whole.state()["optimizer"]), step
    assert whole.model.encoder_theta == 80_000.0
