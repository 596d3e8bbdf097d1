"""One copy over four processes: the same losses, the same samples, checkpoints of any shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import PRESETS
from model.parallel import Degrees
from model.settings import parse
from model.trainer import Place, Trainer
from model.transformer import EncoderDecoder
from orchestrator.errors import UserError

FEW = ["--preset", "demo", "--steps", "6", "--batch", "8", "--subset", "food"]
ROOT = Path(__file__).parents[2]

#: One rank: trains in each shape named, two steps; then saves, and goes on from what was saved.
RANK = """
import json, sys, torch
from model.parallel import Degrees
from model.settings import parse
from model.sharded import ShardedTrainer
from orchestrator.runtime import training

torch.set_num_threads(1)
rank, world, folder, shapes = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world
)
told = {}
for shape in shapes.split(";"):
    trainer = ShardedTrainer(parse(sys.argv[6:]), Degrees(*map(int, shape.split(","))))
    run = training.join(f"{folder}/vault")
    resumed = trainer.resume(run) if sys.argv[5] == "resume" else False
    steps = [trainer.advance() for _ in range(2)]
    whole = {n: p.full_tensor().clone() for n, p in trainer.model.named_parameters()}
    told[shape] = {
        "resumed": resumed,
        "step": trainer.step,
        "losses": [one.loss for one in steps],
        "norms": [one.norm for one in steps],
        "predicted": [one.predicted for one in steps],
        "tokens": trainer.tokens,
    }
    if rank == 0:
        torch.save(whole, f"{folder}/{world}-{shape}.pt")
if sys.argv[5] == "save":
    trainer.save(run)
    run.close()
if rank == 0:
    print(json.dumps(told))
torch.distributed.destroy_process_group()
"""


def gang(folder: Path, world: int, shapes: str, what: str) -> dict[str, dict[str, Any]]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env.update({"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"})
    command = [sys.executable, "-W", "ignore", "-c", RANK]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(world), str(folder), shapes, what, *FEW],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in range(world)
    ]
    try:
        said = [rank.communicate(timeout=800)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * world
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    told: dict[str, dict[str, Any]] = json.loads(said[0])
    return told


@pytest.mark.timeout(1_200)  # six starts of Python and torch on whatever cores there are
def test_four_ranks_in_any_shape_train_like_one_and_others_go_on(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    alone = Trainer(parse(FEW), Place())
    steps = [alone.advance() for _ in range(4)]
    shapes = "1,2,2;2,2,1"
    told = gang(tmp_path, 4, shapes, "save")
    reference = Trainer(parse(FEW), Place())
    for _ in range(2):
        reference.advance()
    for shape in shapes.split(";"):
        one = told[shape]
        assert one["losses"] == pytest.approx([step.loss for step in steps[:2]], abs=2e-4)
        assert one["norms"] == pytest.approx([step.norm for step in steps[:2]], rel=1e-3)
        assert one["predicted"] == [step.predicted for step in steps[:2]]  # the same samples
        whole = torch.load(tmp_path / f"4-{shape}.pt")
        for name, parameter in reference.model.named_parameters():
            assert torch.allclose(whole[name], parameter, atol=2e-3), name
    resumed = gang(tmp_path, 2, "1,1,2", "resume")["1,1,2"]  # half the ranks, another shape
    assert resumed["resumed"]
    assert resumed["step"] == 4
    assert resumed["predicted"] == [step.predicted for step in steps[2:]]
    assert resumed["losses"] == pytest.approx([step.loss for step in steps[2:]], abs=2e-2)
    assert resumed["tokens"] == alone.tokens


@pytest.mark.parametrize(
    ("degrees", "world", "says"),
    [
        (
            Degrees(2, 1, 2),
            2,
            "makes 4 ranks, but there are 2",
        ),
        (Degrees(1, 1, 4), 4, "2 key-value heads do not divide into 4 tensor parts"),
    ],
)
def test_a_shape_that_does_not_divide_is_refused(degrees: Degrees, world: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        degrees.check(PRESETS["demo"], world)


@pytest.mark.parametrize("preset", ["edge-7b", "flash-21b"])
def test_the_big_presets_divide_over_eight_tensor_ranks(preset: str) -> None:
    Degrees(64, 1, 8).check(PRESETS[preset], 512)
    with torch.device("meta"):
        model = EncoderDecoder(PRESETS[preset])
    assert all(parameter.is_meta for parameter in model.parameters())
