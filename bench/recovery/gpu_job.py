"""The training that is killed on a GPU, under Holdfast alone.

    python gpu_job.py OUT PAUSE DEVICE BACKEND WIDTH LAYERS    (RANK, ... as of torchrun)

A transformer of that size on DEVICE, all ranks on the same one; gradients are averaged over BACKEND
in one buffer. Each rank appends "TIME STEP PID" to OUT/rankN for every step, and "TIME NAME PID"
to OUT/marksN for what comes before the first: `script` (it was entered), `device` (the device can
compute), `model` (built there), `stand` (the group is formed, the state is taken).
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn import functional

from orchestrator.runtime import training

workload = importlib.import_module("workload")  # beside this script, which is no package there
STEPS = 1_000_000  #: it is ended before


def mark(out: Path, name: str) -> None:
    """Note that a stage was reached."""
    with (out / f"marks{os.environ['RANK']}").open("a") as file:
        file.write(f"{time.time():.6f} {name} {os.getpid()}\n")


def main(out: Path, pause: float, device: str, backend: str, width: int, layers: int) -> None:
    """Train until killed."""
    mark(out, "script")
    run = training.join()
    torch.set_num_threads(1)
    probe = torch.ones(8, 8, device=device)
    (probe @ probe).sum().item()
    mark(out, "device")
    model = workload.Network(width, layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    mark(out, "model")
    loop = run.steady(
        {"model": model, "optimizer": optimizer}, backend=backend, save_seconds=3600.0
    )

    def train() -> None:
        mark(out, "stand")
        for step in loop.steps(STEPS):
            words = torch.randint(0, workload.WORDS, (workload.BATCH, workload.LENGTH)).to(device)
            optimizer.zero_grad()
            logits = model(words).flatten(0, 1)
            loss = functional.cross_entropy(logits, words.roll(-1, 1).flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            dist.all_reduce(probe)  # also a rank alone goes through the backend
            loop.average_gradients()
            optimizer.step()
            loop.told(loss.item())
            time.sleep(pause)
            workload.note(out, step)

    loop.run(train)


if __name__ == "__main__":
    folder, seconds, name, way, *size = sys.argv[1:]
    main(Path(folder), float(seconds), name, way, int(size[0]), int(size[1]))
