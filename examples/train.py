"""A training script as torchrun starts it; it imports nothing of Holdfast.

Data-parallel linear regression on the CPU (gloo). Rank 0 writes a snapshot every 10 steps, in one
rename; all ranks begin from it. Ends with the line "done: error ..." on every rank.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SAVE_EVERY = 10  #: steps


def batch(step: int, rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return this rank's share of the samples of a step: the same whatever came before."""
    dice = torch.Generator().manual_seed(step)
    points = torch.randn(64, 8, generator=dice)[rank::world]
    return points, points.sum(dim=1, keepdim=True)


def load(path: Path, model: nn.Module) -> int:
    """Return the step to begin with."""
    if not path.exists():
        return 0
    snapshot = torch.load(path, weights_only=True)
    model.load_state_dict(snapshot["model"])
    return int(snapshot["step"])


def save(path: Path, model: nn.Module, step: int) -> None:
    """Write the snapshot whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "step": step}, temporary)
    temporary.replace(path)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds a step takes at least")
    parser.add_argument("--out", type=Path, default=Path("out"))
    wishes = parser.parse_args()

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    wishes.out.mkdir(parents=True, exist_ok=True)
    snapshot = wishes.out / "snapshot.pt"

    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    first = load(snapshot, model)
    gang = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    print(f"rank {rank} of {world}, process {os.getpid()}, begins at step {first}", flush=True)

    for step in range(first, wishes.steps):
        points, wanted = batch(step, rank, world)
        loss = nn.functional.mse_loss(gang(points), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1} loss {loss.item():.6f}", flush=True)
        if rank == 0 and (step + 1) % SAVE_EVERY == 0:
            save(snapshot, model, step + 1)
        time.sleep(wishes.pause)

    error = (model.weight - 1).abs().max().item()
    print(f"done: error {error:.6f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
