"""The state of a training run on one rank, and one step of it.

Everything a restart needs is the weights, the moments, and two numbers: the samples follow from
the step, the learning rate too, and torch's dice are thrown anew from (seed, step) at every step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.data.samples import IGNORED, Batch, Feed
from model.gradients import GradientBuffer, Totals
from model.optimizer import Optimizer
from model.settings import Settings
from model.transformer import build

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  #: by `Settings.precision`


@dataclass(frozen=True)
class Place:
    """Which part of the gang this process is."""

    rank: int = 0
    world: int = 1


class Trainer:
    """Weights, moments and where they stand."""

    def __init__(self, settings: Settings, place: Place) -> None:
        self.settings = settings
        self.place = place
        self.items = settings.items()
        self.model = build(settings.config, settings.seed)
        self._precision = DTYPES[settings.precision]
        self.optimizer = Optimizer(self.model.named_parameters(), self._precision)
        self.step = 0  #: the last completed step
        self.tokens = 0  #: positions trained on so far, encoder and decoder, all ranks
        self.loss = float("nan")  #: of the last completed step
        self._gradients = GradientBuffer(list(self.model.parameters()))
        self._feed = Feed(
            self.items,
            settings.config,
            settings.batch,
            settings.data_seed,
            settings.text_share,
        )
        self._seed_dice()

    def advance(self) -> Totals:
        """Do one step: samples, loss, gradients of all ranks, update."""
        number = self.step + 1
        batch = self._feed.share(number, self.place.rank, self.place.world)
        self._gradients.clear()
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        totals = self._gradients.reduce(loss.item(), batch.predicted, batch.positions)
        self.optimizer.step(number, self.settings.learning_rate_at(number))
        self.step = number
        self.tokens += totals.positions
        self.loss = totals.loss
        self._seed_dice()
        return totals

    def _loss(self, batch: Batch) -> Tensor:
        """Return the sum of the token losses; `GradientBuffer.reduce` makes the mean of it."""
        lower = self._precision is not torch.float32
        with torch.autocast("cpu", self._precision, enabled=lower):
            logits = self.model(batch.prompt, batch.inputs).flatten(0, 1).float()
        return functional.cross_entropy(
            logits, batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def _seed_dice(self) -> None:
        """Make torch's random numbers a function of (seed, step), whoever restarted when."""
        key = f"{self.settings.seed}:{self.step}".encode()
        torch.manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "big"))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds: live tensors by name (tied ones once), and numbers."""
        weights = {name: value.detach() for name, value in self.model.named_parameters()}
        progress = {"step": self.step, "tokens": self.tokens, "loss": self.loss}
        return {"model": weights, "optimizer": self.optimizer.state_dict(), "progress": progress}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state. Raises KeyError if a tensor is missing."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state["model"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["progress"]["step"])
        self.tokens = int(state["progress"]["tokens"])
        self.loss = float(state["progress"]["loss"])
        self._seed_dice()

    def attestation(self) -> dict[str, Any]:
        """Return the facts that a resume must find again, read from the live state."""
        dice = torch.get_rng_state().numpy().tobytes()
        return {
            "learning_rate": self.settings.learning_rate_at(self.step + 1),  # of the next step
            "rng": hashlib.sha256(dice).hexdigest(),
            "tokens": self.tokens,
            "cursor": self.step * self.settings.batch,
            "config": self.settings.digest(),
        }
