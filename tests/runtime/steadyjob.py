"""A small job for kills: two layers, momentum, a flat reduction; says each step and what it weighs.

python steadyjob.py STEPS PAUSE WIDTH OUT
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from orchestrator.runtime import training


def main() -> None:
    steps, pause, width = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    out = Path(sys.argv[4])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, width), nn.Dropout(0.1), nn.ReLU(), nn.Linear(width, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, gamma=0.9)
    run = training.join()
    wishes = json.loads(os.environ.get("STEADY", "{}"))
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    steady = run.steady(parts, **wishes)

    def say(**what: object) -> None:
        line = json.dumps({"at": time.time(), "rank": run.rank, "pid": os.getpid(), **what})
        with (out / f"said.{os.environ.get('HOLDFAST_NODE', 'x')}.{run.local_rank}").open("a") as f:
            f.write(line + "\n")

    every = int(os.environ.get("WEIGH_EVERY", "1000000"))

    def weights() -> dict[str, str]:
        total = hashlib.sha256()
        for tensor in model.state_dict().values():
            total.update(tensor.numpy().tobytes())
        return {"weighs": total.hexdigest()}

    def train() -> None:
        where = f"{run.around.node}:{run.world_size}"
        say(began=steady.step, recovered=steady.recovered, where=where)
        for step in steady.steps(steps):
            x = torch.randn(8, 16)  # the dice depend on the seed, the step and the rank
            loss = (model(x) - x[:, :4]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            steady.average_gradients()
            optimizer.step()
            scheduler.step()
            steady.told(loss, tokens=8 * run.world_size)
            time.sleep(pause)
            eval(os.environ.get("POISON", "None"))
            say(step=step, **(weights() if step % every == 0 else {}))

    steady.run(train)
    say(digest=weights()["weighs"], lr=optimizer.param_groups[0]["lr"], tokens=steady.tokens)


if __name__ == "__main__":
    main()
