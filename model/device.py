"""Which processor a rank computes on: its own GPU where there is one, else the CPU."""

from __future__ import annotations

import torch

from orchestrator.errors import UserError

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  #: of the process group, by device type


def choose(wanted: str, local_rank: int = 0) -> torch.device:
    """Return the device of a rank, and make it the current one.

    `wanted` is one of `settings.DEVICES`; `auto` takes the GPU of this local rank, or the CPU of
    a node without GPUs. Raises UserError if a GPU is asked for that is not there.
    """
    here = torch.cuda.device_count() if wanted != "cpu" else 0
    if wanted == "cpu" or (wanted == "auto" and here == 0):
        return torch.device("cpu")
    if local_rank >= here:
        raise UserError(
            f"--device {wanted}: this node has {here} GPUs that torch can use, local rank "
            f"{local_rank} needs one more; start fewer ranks a node, or use --device cpu"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
