"""One rank of a gang of whole copies: weights, moments, and one step of training."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from model.course import DTYPES, Course, feeds
from model.data.loader import Loader
from model.data.samples import IGNORED, Batch
from model.gradients import GradientBuffer, Totals
from model.optimizer import Optimizer
from model.settings import Settings
from model.transformer import build

if TYPE_CHECKING:
    from orchestrator.runtime.training import Run
    from orchestrator.runtime.vault import Checkpoint

CPU = torch.device("cpu")
COMPILED_LENGTHS = 16  #: under torch.compile, lengths are multiples of it: fewer shapes to compile


@dataclass(frozen=True)
class Place:
    """Which part of the gang this process is."""

    rank: int = 0
    world: int = 1


class Trainer(Course):
    """Weights, moments and where they stand."""

    def __init__(self, settings: Settings, place: Place, device: torch.device = CPU) -> None:
        """Draw the weights on the CPU, the same for every device, and move them."""
        super().__init__(settings)
        self.place, self.device = place, device
        self.model = build(settings.config, settings.seed).to(device)
        self.model.recompute = settings.recompute
        self._precision = DTYPES[settings.precision]
        self.optimizer = Optimizer(self.model.named_parameters(), self._precision)
        self._gradients = GradientBuffer(list(self.model.parameters()))
        self.loader = Loader(
            feeds(settings),
            rank=place.rank,
            world=place.world,
            workers=settings.workers,
            multiple=COMPILED_LENGTHS if settings.compile else 1,
        )
        forward: Callable[..., Tensor] = self.model
        if settings.compile:
            forward = torch.compile(self.model)
        self._forward = forward
        self.seed_dice()

    def advance(self) -> Totals:
        """Do one step: samples, loss, gradients of all ranks, update."""
        number = self.step + 1
        self.model.encoder_theta = self.rope_base(number)
        batch = self.loader.get(self.batch_of(number)).to(self.device)
        self._gradients.clear()
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        totals = self._gradients.reduce(
            loss.item(), batch.predicted, batch.positions, self.settings.clip
        )
        self.optimizer.step(number, self.settings.learning_rate_at(number))
        self.waited_s = self._gradients.waited_s
        self.flops = self.count_flops(batch)
        self.completed(number, totals.loss, totals.positions)
        return totals

    def _loss(self, batch: Batch) -> Tensor:
        """Return the sum of the token losses; `GradientBuffer.reduce` makes the mean of it."""
        lower = self._precision is not torch.float32
        with torch.autocast(self.device.type, self._precision, enabled=lower):
            logits = self._forward(batch.prompt, batch.inputs).flatten(0, 1).float()
        return functional.cross_entropy(
            logits, batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds: live tensors by name (tied ones once), and numbers."""
        weights = {name: value.detach() for name, value in self.model.named_parameters()}
        optimizer, progress = self.optimizer.state_dict(), self.progress()
        return {"model": weights, "optimizer": optimizer, "progress": progress}

    def reset(self) -> None:
        """Go back to where training began."""
        self.load(Trainer(self.settings, self.place).state())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load a commit of the vault, every part verified."""
        state = {}
        for part in checkpoint.manifest.parts:
            data = io.BytesIO(checkpoint.read(part))
            state[part.kind] = torch.load(data, map_location="cpu", weights_only=True)
        self.load(state)

    def save(self, run: Run) -> None:
        """Save a checkpoint; every rank calls it, rank 0 writes."""
        run.save(self.step, self.state(), **self.attestation())

    def resume(self, run: Run) -> bool:
        """Load the commit to resume from, if there is one; every rank calls it."""
        loaded = run.resume()
        if loaded is not None:
            self.load(loaded.state)
            run.attest(step=self.step, **self.attestation())
        return loaded is not None

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state. Raises KeyError if a tensor is missing."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state["model"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.take(state["progress"])
