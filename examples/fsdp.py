"""A fully sharded (FSDP2) training loop with fenced, verified checkpoints.

Each rank holds a share of weights and moments, so that none can stand in for another: when a rank
dies all are started again, forked from the warm parent, and load the last commit. Runs on the CPU
(gloo) and under torchrun as well. Ends with the line "done: error ..." on every rank.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from orchestrator.runtime import dcp, training

SAVE_EVERY = 20  #: steps


def batch(step: int, rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return this rank's share of the samples of a step: the same whatever came before."""
    dice = torch.Generator().manual_seed(step)
    points = torch.randn(64, 8, generator=dice)[rank::world]
    return points, points.sum(dim=1, keepdim=True)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    wishes = parser.parse_args()

    torch.set_num_threads(1)
    run = training.join()
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 1))
    fully_shard(model, mesh=init_device_mesh("cpu", (run.world_size,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)

    def facts(step: int) -> dict[str, object]:
        rate = optimizer.param_groups[0]["lr"]
        return {"learning_rate": rate, "tokens": 64 * step, "cursor": step, "config": 1, "rng": 0}

    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments}
    loaded = dcp.resume(run, state)
    first = 0 if loaded is None else loaded.step
    if loaded is not None:
        set_state_dict(
            model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )
        run.attest(step=first, **facts(first))
    print(f"rank {run.rank} of {run.world_size} begins at step {first}", flush=True)

    loss = torch.tensor(float("nan"))
    for step in range(first + 1, wishes.steps + 1):
        points, wanted = batch(step, run.rank, run.world_size)
        loss = nn.functional.mse_loss(model(points), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.heartbeat(step, loss.item())
        if step % SAVE_EVERY == 0 or step == wishes.steps:
            weights, moments = get_state_dict(model, optimizer)
            dcp.save(run, step, {"model": weights, "optimizer": moments}, **facts(step))

    print(f"done: error {loss.item():.6f}", flush=True)
    run.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
