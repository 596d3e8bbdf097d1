"""The state of a training run on one rank, and one step of it.

Everything a restart needs is the weights, the moments, and a few numbers: the samples follow from
the step, the stage and the learning rate too, and torch's dice are thrown anew from (seed, step) at
every step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model import tokenizer
from model.accounting import Positions, training_flops
from model.curriculum import Stage
from model.data import sources
from model.data.feed import Feed
from model.data.loader import Loader, Want
from model.data.order import Stream
from model.data.samples import IGNORED, Batch, Form
from model.gradients import GradientBuffer, Totals
from model.optimizer import Optimizer
from model.settings import Settings
from model.spikes import Sentinel
from model.transformer import build

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  #: by `Settings.precision`
COMPILED_LENGTHS = 16  #: under torch.compile, lengths are multiples of it: fewer shapes to compile


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
        self.model = build(settings.config, settings.seed)
        self.model.recompute = settings.recompute
        self._precision = DTYPES[settings.precision]
        self.optimizer = Optimizer(self.model.named_parameters(), self._precision)
        self.step = 0  #: the last completed step
        self.tokens = 0  #: positions trained on so far, encoder and decoder, all ranks
        self.loss = float("nan")  #: of the last completed step
        self.flops = 0  #: of this rank's last step, forward and backward
        self.skipped: list[Want] = []  #: batches that are never trained on
        self.sentinel = Sentinel()
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
        self._seed_dice()

    def batch_of(self, step: int) -> Want:
        """Return which batch a step (from 1) trains on: the next of its stage not skipped."""
        moment = self.settings.curriculum.at(step)
        number = moment.step
        for one in sorted(s.number for s in self.skipped if s.stage == moment.stage):
            number += one <= number
        return Want(moment.stage, number)

    def advance(self) -> Totals:
        """Do one step: samples, loss, gradients of all ranks, update."""
        number = self.step + 1
        stage = self.settings.curriculum.stages[self.settings.curriculum.at(number).stage]
        base = stage.rope_base
        self.model.encoder_theta = self.settings.config.encoder_theta if base is None else base
        batch = self.loader.get(self.batch_of(number))
        self._gradients.clear()
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        totals = self._gradients.reduce(
            loss.item(), batch.predicted, batch.positions, self.settings.clip
        )
        self.optimizer.step(number, self.settings.learning_rate_at(number))
        self.step = number
        self.tokens += totals.positions
        self.loss = totals.loss
        self.flops = self._flops(batch)
        self._seed_dice()
        return totals

    def _loss(self, batch: Batch) -> Tensor:
        """Return the sum of the token losses; `GradientBuffer.reduce` makes the mean of it."""
        lower = self._precision is not torch.float32
        with torch.autocast("cpu", self._precision, enabled=lower):
            logits = self._forward(batch.prompt, batch.inputs).flatten(0, 1).float()
        return functional.cross_entropy(
            logits, batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def _flops(self, batch: Batch) -> int:
        """Return the operations of a batch, padding included: what the processor has to do."""
        rows, encoder = batch.prompt.tokens.shape
        vision, sound = batch.prompt.vision, batch.prompt.sound
        trunk = training_flops(self.settings.config, Positions(encoder, batch.inputs.shape[1]))
        patches = 0 if vision is None else len(vision.rows)
        sounds = 0 if sound is None else len(sound.rows)
        return rows * trunk + training_flops(self.settings.config, Positions(0, 0, patches, sounds))

    def _seed_dice(self) -> None:
        """Make torch's random numbers a function of (seed, step), whoever restarted when."""
        key = f"{self.settings.seed}:{self.step}".encode()
        torch.manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "big"))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds: live tensors by name (tied ones once), and numbers."""
        weights = {name: value.detach() for name, value in self.model.named_parameters()}
        progress = {
            "step": self.step,
            "tokens": self.tokens,
            "loss": self.loss,
            "skipped": [[one.stage, one.number] for one in self.skipped],
            "sentinel": self.sentinel.state(),
        }
        return {"model": weights, "optimizer": self.optimizer.state_dict(), "progress": progress}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state. Raises KeyError if a tensor is missing."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state["model"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        progress = state["progress"]
        self.step = int(progress["step"])
        self.tokens = int(progress["tokens"])
        self.loss = float(progress["loss"])
        self.skipped = [Want(*one) for one in progress["skipped"]]
        self.sentinel.load(progress["sentinel"])
        self._seed_dice()

    def attestation(self) -> dict[str, Any]:
        """Return the facts that a resume must find again, read from the live state."""
        dice = torch.get_rng_state().numpy().tobytes()
        following = self.batch_of(self.step + 1)
        return {
            "learning_rate": self.settings.learning_rate_at(self.step + 1),  # of the next step
            "rng": hashlib.sha256(dice).hexdigest(),
            "tokens": self.tokens,
            "cursor": {"stage": following.stage, "batch": following.number},
            "config": self.settings.digest(),
        }


def feeds(settings: Settings) -> tuple[Feed, ...]:
    """Return the samples of every stage."""
    stages = enumerate(settings.curriculum.stages)
    return tuple(_feed(settings, number, stage) for number, stage in stages)


def _feed(settings: Settings, number: int, stage: Stage) -> Feed:
    stream = Stream(settings.data_seed, number, tuple(stage.mixture.values()))
    return Feed(sources.of_stage(stage), stream, stage.batch, form_of(settings, stage))


def form_of(settings: Settings, stage: Stage) -> Form:
    """Return what the samples of a stage look like."""
    if settings.tokenizer is None:
        ranks = tokenizer.load()
    else:
        ranks = tokenizer.from_file(Path(settings.tokenizer), settings.config.vocabulary)
    return Form(settings.config, ranks, stage.prompt_max, stage.answer_max)
