"""A Hugging Face Trainer with heartbeats and fenced, verified checkpoints: one callback, two lines.

Trainer keeps its own checkpoint format; the callback puts the files of each one into the vault, and
puts the newest verified one back before the training begins. When a rank dies all are started
again, forked from the warm parent. It runs under Holdfast, torchrun and alone, on the CPU. Needs
`pip install transformers accelerate`. Ends with the line "done: error ..." on every rank.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from orchestrator.runtime import training

SAVE_EVERY = 10  #: steps


class Holdfast(TrainerCallback):  # type: ignore[misc]
    """Tells of each step, and keeps Trainer's checkpoints in the run's vault."""

    def __init__(self, run: training.Run) -> None:
        """Speak for one rank."""
        self._run = run

    def restore(self, folder: Path) -> str | None:
        """Write the newest checkpoint into `folder`; return where, for `train`, None if none is."""
        loaded = self._run.resume()
        if loaded is None:
            return None
        place = folder / f"checkpoint-{loaded.step}"
        place.mkdir(parents=True, exist_ok=True)
        for name, content in loaded.state["files"].items():
            (place / Path(name).name).write_bytes(content.numpy().tobytes())
        self._run.attest(step=loaded.step, **facts(loaded.step, loaded.state["files"]))
        return str(place)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Say that a step is done."""
        self._run.heartbeat(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Take what Trainer has just written; rank 0's copy is the one that counts."""
        if self._run.rank == 0:
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            files = {one.name: one.read_bytes() for one in sorted(place.iterdir())}
            content = {
                name: torch.frombuffer(bytearray(data), dtype=torch.uint8)
                for name, data in files.items()
                if data  # no tensor is made of nothing, and Trainer writes no empty file
            }
            step = state.global_step
            self._run.save(step, {"files": content}, **facts(step, content))


def facts(step: int, files: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return what a resume must find again: here the very bytes of Trainer's files."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + files[name].numpy().tobytes())
    return {"learning_rate": 0.0, "tokens": 0, "cursor": step, "config": 1, "rng": total.digest()}


class Line(nn.Module):
    """Linear regression, as Trainer wants a model: inputs by name, a dict with the loss."""

    def __init__(self) -> None:
        """Begin at the same weights in every process."""
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(8, 1)

    def forward(self, points: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return loss and answers of points [batch, 8] whose labels are [batch, 1]."""
        answers = self.inner(points)
        return {"loss": nn.functional.mse_loss(answers, labels), "logits": answers}


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    wishes = parser.parse_args()

    torch.set_num_threads(1)
    points = torch.randn(512, 8, generator=torch.Generator().manual_seed(1))
    data = [{"points": one, "labels": one.sum(dim=0, keepdim=True)} for one in points]
    run = training.join()
    holdfast = Holdfast(run)
    with tempfile.TemporaryDirectory(prefix="trainer-") as name:
        arguments = TrainingArguments(
            output_dir=name,
            max_steps=wishes.steps,
            save_steps=SAVE_EVERY,
            save_total_limit=1,
            per_device_train_batch_size=16,
            learning_rate=0.05,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        )
        model = Line()
        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[holdfast])
        place = holdfast.restore(Path(name))
        print(f"begins from {place and Path(place).name}", flush=True)
        trainer.train(resume_from_checkpoint=place)
    run.close()  # waits for the last save
    error = (model.inner.weight - 1).abs().max().item()
    print(f"done: error {error:.6f}", flush=True)


if __name__ == "__main__":
    main()
