"""The training that is killed: a small transformer, DistributedDataParallel over gloo, two ranks.

    python workload.py steady|plain|inprocess OUT PAUSE   (RANK, WORLD_SIZE, ... as of torchrun)

`steady` is the loop as Holdfast wants it; `plain` saves every ten steps with one rename and leaves
at once when a collective breaks, which makes torchrun's restart quick; `inprocess` is wrapped
by NVIDIA's resiliency extension, with one rank in reserve, tuned to look often. All do the same
steps: about 5.3 million parameters, some 80 ms on one core. Each rank appends "TIME STEP PID" to
OUT/rankN for every step, when it is completed.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

STEPS = 1_000_000  #: it is ended before
SAVE_EVERY = 10  #: steps, of a plain script
WIDTH, LAYERS, HEADS, WORDS, LENGTH, BATCH = 256, 6, 4, 1024, 32, 2


class Network(nn.Module):
    """An encoder over a vocabulary."""

    def __init__(self, width: int = WIDTH, layers: int = LAYERS) -> None:
        """Make it, the same on every rank."""
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, width)
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, WORDS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Map (batch, length) words to (batch, length, vocabulary) logits."""
        logits: torch.Tensor = self.head(self.encoder(self.embedding(words)))
        return logits


def make() -> tuple[Network, torch.optim.AdamW]:
    """Return model and optimizer."""
    torch.set_num_threads(1)
    model = Network()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4)


def advance(gang: Callable[[torch.Tensor], torch.Tensor], optimizer: Any, step: int) -> float:
    """Do one step of this rank; returns the loss."""
    dice = torch.Generator().manual_seed(step * 1000 + int(os.environ["RANK"]))
    words = torch.randint(0, WORDS, (BATCH, LENGTH), generator=dice)
    optimizer.zero_grad()
    logits = gang(words).flatten(0, 1)
    loss = functional.cross_entropy(logits, words.roll(-1, 1).flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def note(out: Path, step: int) -> None:
    """Tell that this rank completed a step."""
    line = f"{time.time():.6f} {step} {os.getpid()}\n"
    with (out / f"rank{os.environ['RANK']}").open("a") as file:
        file.write(line)


def steady(out: Path, pause: float) -> None:
    """Train with the steady loop."""
    from orchestrator.runtime import training

    run = training.join()
    model, optimizer = make()
    loop = run.steady({"model": model, "optimizer": optimizer}, save_every=50)

    def train() -> None:
        gang = DistributedDataParallel(model, init_sync=False)
        for step in loop.steps(STEPS):
            loop.told(advance(gang, optimizer, step))
            time.sleep(pause)
            note(out, step)

    loop.run(train)


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the snapshot of a plain script, if there is one; return its step."""
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Save a snapshot in one rename."""
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**states, "step": step}, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def inprocess(out: Path, pause: float) -> None:
    """Train inside NVIDIA's in-process wrapper; one process more than ranks waits in reserve."""
    wrapper = importlib.import_module("nvidia_resiliency_ext.inprocess")
    assignment = importlib.import_module("nvidia_resiliency_ext.inprocess.rank_assignment")
    often = timedelta(milliseconds=20)
    world = int(os.environ["WORLD_SIZE"]) - 1
    base: Any = torch.distributed.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["BENCH_STORE"]), wait_for_workers=False
    )
    model, optimizer = make()

    def train(call: Any) -> None:
        store = torch.distributed.PrefixStore(str(call.iteration), base)
        rank = int(os.environ["RANK"])
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
        first = load(out / "snapshot.pt", model, optimizer)
        gang = DistributedDataParallel(model)
        for step in range(first + 1, STEPS):
            advance(gang, optimizer, step)
            time.sleep(pause)
            note(out, step)
            if step % SAVE_EVERY == 0 and rank == 0:
                save(out / "snapshot.pt", model, optimizer, step)

    def call(call_wrapper: Any = None) -> None:
        train(call_wrapper)

    call.__annotations__["call_wrapper"] = wrapper.CallWrapper
    wrapper.Wrapper(
        store_kwargs={"port": int(os.environ["MASTER_PORT"]), "timeout": timedelta(seconds=60)},
        rank_assignment=wrapper.Compose(
            assignment.MaxActiveWorldSize(world), assignment.ShiftRanks()
        ),
        monitor_thread_interval=often,
        monitor_process_interval=often,
        last_call_wait=timedelta(milliseconds=10),
    )(call)()


def plain(out: Path, pause: float) -> None:
    """Train as one would for torchrun."""
    torch.distributed.init_process_group("gloo")
    model, optimizer = make()
    path = out / "snapshot.pt"
    first = load(path, model, optimizer)
    gang = DistributedDataParallel(model)
    try:
        for step in range(first + 1, STEPS):
            advance(gang, optimizer, step)
            time.sleep(pause)
            note(out, step)
            if step % SAVE_EVERY == 0 and os.environ["RANK"] == "0":
                save(path, model, optimizer, step)
    except RuntimeError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(17)  # an orderly end of the interpreter takes another fifth of a second


if __name__ == "__main__":
    ways = {"steady": steady, "plain": plain, "inprocess": inprocess}
    ways[sys.argv[1]](Path(sys.argv[2]), float(sys.argv[3]))
