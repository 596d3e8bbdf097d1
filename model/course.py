"""Where a training run stands, apart from its weights: what every kind of trainer shares.

The samples follow from the step, the stage and the learning rate too, and torch's dice are thrown
anew from (seed, step) at every step. So a checkpoint holds weights, moments and a few numbers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from model import tokenizer
from model.accounting import Positions, training_flops
from model.curriculum import Stage
from model.data import sources
from model.data.feed import Feed
from model.data.loader import Want
from model.data.order import Stream
from model.data.samples import Batch, Form
from model.settings import Settings
from model.spikes import Sentinel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  #: by `Settings.precision`


class Course:
    """Steps done, batches skipped, losses seen."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.step = 0  #: the last completed step
        self.tokens = 0  #: positions trained on so far, encoder and decoder, all ranks
        self.loss = float("nan")  #: of the last completed step
        self.waited_s: float | None = None  #: for other ranks, in the last step; None: not known
        self.flops = 0  #: of this rank's last step, forward and backward
        self.skipped: list[Want] = []  #: batches that are never trained on
        self.sentinel = Sentinel()
        self.seed_dice()

    def batch_of(self, step: int) -> Want:
        """Return which batch a step (from 1) trains on: the next of its stage not skipped."""
        moment = self.settings.curriculum.at(step)
        number = moment.step
        for one in sorted(s.number for s in self.skipped if s.stage == moment.stage):
            number += one <= number
        return Want(moment.stage, number)

    def rope_base(self, step: int) -> float:
        """Return the encoder's RoPE base in the stage of a step."""
        stage = self.settings.curriculum.stages[self.settings.curriculum.at(step).stage]
        return self.settings.config.encoder_theta if stage.rope_base is None else stage.rope_base

    def completed(self, step: int, loss: float, positions: int) -> None:
        """Move on after a step."""
        self.step = step
        self.tokens += positions
        self.loss = loss
        self.seed_dice()

    def seed_dice(self) -> None:
        """Make torch's random numbers a function of (seed, step), whoever restarted when."""
        key = f"{self.settings.seed}:{self.step}".encode()
        torch.manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "big"))

    def progress(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loss": self.loss,
            "skipped": [[one.stage, one.number] for one in self.skipped],
            "sentinel": self.sentinel.state(),
        }

    def take(self, progress: dict[str, Any]) -> None:
        """Continue from what `progress` returned."""
        self.step = int(progress["step"])
        self.tokens = int(progress["tokens"])
        self.loss = float(progress["loss"])
        self.skipped = [Want(*one) for one in progress["skipped"]]
        self.sentinel.load(progress["sentinel"])
        self.seed_dice()

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

    def count_flops(self, batch: Batch) -> int:
        """Return the operations of a batch, padding included: what the processor has to do."""
        config = self.settings.config
        rows, encoder = batch.prompt.tokens.shape
        vision, sound = batch.prompt.vision, batch.prompt.sound
        trunk = training_flops(config, Positions(encoder, batch.inputs.shape[1]))
        patches = 0 if vision is None else len(vision.rows)
        sounds = 0 if sound is None else len(sound.rows)
        return rows * trunk + training_flops(config, Positions(0, 0, patches, sounds))


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
