"""Restarts with other numbers of ranks: 2, then 4, then 3 go on with the same samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from model.damage import of_gang
from model.data import shards
from model.settings import Settings, parse
from model.trainer import Place, Trainer
from orchestrator.runtime import training

ROOT = Path(__file__).parents[2]
STEPS = 2  #: of each gang
PLAN = """
[[stage]]
name = "all"
steps = 6
batch = 12
mixture = {{ pictures = 0.5, "shards/web" = 0.5 }}
subset = "food"
prompt_max = 64
answer_max = 16
learning_rate = 0.002
shards = "{folder}"
"""

#: A warm parent forks the ranks of one gang after another, each from the checkpoint of the last.
PARENT = """
import json, os, sys
import torch
from model.course import feeds
from model.damage import of_gang
from model.parallel import Degrees
from model.settings import parse
from model.trainer import Place, Trainer
from orchestrator.runtime import training

torch.set_num_threads(1)
folder, steps, kind, shapes = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4].split(";")
settings = parse(sys.argv[5:])
feeds(settings)[0].samples(1, range(12))  # read what is read once before the ranks are forked
if kind == "sharded":
    from model.sharded import ShardedTrainer


def be(rank, world, shape):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    store = f"file://{folder}/{kind}-{shape}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    degrees = [int(one) for one in shape.split(",")]
    if kind == "sharded":
        trainer = ShardedTrainer(settings, Degrees(*degrees))
    else:
        trainer = Trainer(settings, Place(rank, world))
    run = training.join(f"{folder}/vault-{kind}")
    resumed = trainer.resume(run)
    begun = trainer.step
    totals = [trainer.advance() for _ in range(steps)]
    trainer.save(run)
    tally = of_gang(run, trainer.loader)
    if rank == 0:
        told = {
            "world": world,
            "resumed": resumed,
            "begun": begun,
            "losses": [one.loss for one in totals],
            "counted": [[one.predicted, one.positions] for one in totals],
            "tokens": trainer.tokens,
            "damaged": tally.counts.total(),
        }
        print(json.dumps(told), flush=True)
    run.close()
    torch.distributed.destroy_process_group()


for shape in shapes:
    ranks = []
    world = 1
    for degree in shape.split(","):
        world *= int(degree)
    for rank in range(world):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                be(rank, world, shape)
                status = 0
            finally:
                os._exit(status)
        ranks.append(child)
    assert [os.waitpid(one, 0)[1] for one in ranks] == [0] * world, shape
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write shards with one sample in four damaged, and a curriculum."""
    folder = tmp_path_factory.mktemp("data")
    text = "A sentence about number {0} and what became of {0}. " * 4
    good = [{"txt": text.format(number).encode()} for number in range(9)]
    shards.write([*good, *[{"txt": b"\xff"}] * 3], folder / "web")
    path = folder / "plan.toml"
    path.write_text(PLAN.format(folder=folder))
    return path


def settings(plan: Path) -> Settings:
    return parse(["--preset", "demo", "--curriculum", str(plan)])


@pytest.mark.parametrize(
    ("kind", "shapes", "noise"),
    [
        pytest.param("replicated", "2;4;3", 2e-3, id="replicated"),
        pytest.param("sharded", "2,1,1;2,2,1;3,1,1", 2e-2, id="sharded", marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(600)
def test_2_then_4_then_3_ranks_train_on_the_same_samples_to_the_same_loss(
    tmp_path: Path, plan: Path, kind: str, shapes: str, noise: float
) -> None:
    torch.set_num_threads(1)
    wanted = settings(plan)
    alone = Trainer(wanted, Place())
    totals = [alone.advance() for _ in range(wanted.steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    given = [str(tmp_path), str(STEPS), kind, shapes, "--preset", "demo", "--curriculum", str(plan)]
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARENT, *given],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=500,
        check=True,
    ).stdout
    gangs: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    assert [one["world"] for one in gangs] == [2, 4, 3]
    assert [one["begun"] for one in gangs] == [0, STEPS, 2 * STEPS]
    assert [one["resumed"] for one in gangs] == [False, True, True]
    counted = [pair for one in gangs for pair in one["counted"]]
    assert counted == [[one.predicted, one.positions] for one in totals]  # the same samples
    losses = [loss for one in gangs for loss in one["losses"]]
    assert losses == pytest.approx([one.loss for one in totals], abs=noise)
    assert losses != [losses[0]] * len(losses)
    assert gangs[-1]["tokens"] == alone.tokens
    whole = of_gang(training.join(), alone.loader)  # what one rank counts in one run
    assert sum(one["damaged"] for one in gangs) == whole.counts.total() > 0
