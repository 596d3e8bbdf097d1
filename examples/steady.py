"""The loop of train.py as a steady loop: it keeps its process and its step when another rank dies.

Data-parallel linear regression on the CPU (gloo). It runs under Holdfast, torchrun and alone. Ends
with the line "done: error ..." on every rank. What differs from train.py are ten lines, and what is
not needed any more: the process group, the snapshot and where it lies.
"""

from __future__ import annotations

import argparse
import os
import time

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.runtime import training

SAVE_EVERY = 10  #: steps


def batch(step: int, rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return this rank's share of the samples of a step: the same whatever came before."""
    dice = torch.Generator().manual_seed(step)
    points = torch.randn(64, 8, generator=dice)[rank::world]
    return points, points.sum(dim=1, keepdim=True)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds a step takes at least")
    wishes = parser.parse_args()

    torch.set_num_threads(1)
    run = training.join()
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    steady = run.steady({"model": model, "optimizer": optimizer}, save_every=SAVE_EVERY)

    def train() -> None:
        rank, world = run.rank, run.world_size  # they may change from one generation to the next
        gang = DistributedDataParallel(model)
        print(f"rank {rank} of {world}, pid {os.getpid()}, goes on at {steady.step}", flush=True)
        for step in steady.steps(wishes.steps):
            points, wanted = batch(step, rank, world)
            loss = nn.functional.mse_loss(gang(points), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"step {step} loss {loss.item():.6f}", flush=True)
            steady.told(loss)
            time.sleep(wishes.pause)

    steady.run(train)
    error = (model.weight - 1).abs().max().item()
    print(f"done: error {error:.6f}", flush=True)


if __name__ == "__main__":
    main()
