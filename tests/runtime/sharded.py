"""One rank of a small FSDP2 training, started by test_dcp.py: python sharded.py VERB VAULT.

`train` takes two steps and saves; `load` loads and prints the digest and the next loss; `fail`
saves into a vault whose disk is full for rank 1; `stale` saves after the run was fenced.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from orchestrator.errors import TransientError
from orchestrator.runtime import dcp, training, weights
from orchestrator.runtime.store import Bytes, DirectoryStore
from orchestrator.runtime.vault import Vault
from tests.runtime.vaults import Story

FACTS: dict[str, Any] = {"learning_rate": 0.1, "tokens": 8, "cursor": 2, "config": 1, "rng": 0}


class FullDisk(DirectoryStore):
    """A store that takes no more parts."""

    def put_part(self, key: str, data: Bytes) -> None:
        raise TransientError(f"{self.place}: No space left on device")


def model(sharded: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    if sharded:
        fully_shard(net, mesh=init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),)))
    return net


def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad()
    loss = net(torch.ones(2, 6)).pow(2).mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def main(verb: str, url: str) -> None:
    torch.set_num_threads(1)
    run = training.join(url)
    sharded = run.world_size > 1
    if sharded:
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    net = model(sharded)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    if verb == "load":
        step(net, optimizer)  # other weights than those saved
        own, moments = get_state_dict(net, optimizer)
        state: dict[str, Any] = {"model": own, "optimizer": moments, "note": "?"}
        loaded = dcp.resume(run, state)
        assert loaded is not None
        assert loaded.state["note"] == "two steps"
        set_state_dict(
            net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )
        run.attest(step=loaded.step, **FACTS)
    else:
        for _ in range(2):
            step(net, optimizer)
        save(verb, run, url, net, optimizer)
    whole = {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in net.state_dict().items()
    }
    digest, loss = weights.digest(whole), step(net, optimizer)
    if run.rank == 0:
        print(digest, f"{loss:.6f}", run.last_commit.seq if run.last_commit else None)
    run.close()
    if sharded:
        torch.distributed.destroy_process_group()


def save(
    verb: str, run: training.Run, url: str, net: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    own, moments = get_state_dict(net, optimizer)
    state = {"model": own, "optimizer": moments, "note": "two steps"}
    assert run.vault is not None
    if verb == "fail" and run.rank == 1:
        run.vault = Vault(FullDisk(url), run.vault.register)
    if verb == "stale":
        dcp.save(run, 2, state, **FACTS)
        if run.rank == 0:
            Story(DirectoryStore(url)).fence()
        torch.distributed.barrier()
    dcp.save(run, 2, state, **FACTS)


if __name__ == "__main__":
    main(*sys.argv[1:])
