"""What a training run is asked to do, read from the command line.

Nothing here imports torch: `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from model.config import PRESETS, ModelConfig
from model.data.emoji import Captioned, select
from orchestrator.errors import UserError

PRECISIONS = ("fp32", "bf16")
WARMUP_STEPS = 10
DECAY_SHARE = 0.5  #: of the steps, at the end
FINAL_SHARE = 0.05  #: of the learning rate, at the last step


@dataclass(frozen=True)
class Settings:
    """One training run. Its `digest` covers what decides the weights."""

    preset: str
    steps: int
    precision: str  #: of the matrix products: a key of `PRECISIONS`; weights are always fp32
    batch: int  #: samples per step, of all ranks together
    seed: int  #: of the initial weights
    data_seed: int  #: of the order and the look of the samples
    learning_rate: float  #: at its highest
    text_share: float  #: of the samples: text restored instead of pictures described
    subset: str
    languages: tuple[str, ...]
    checkpoint_every: int  #: steps
    evaluate: int  #: sprites to describe at the end
    checkpoints: str | None  #: URL of a vault, where Holdfast gives none

    @property
    def config(self) -> ModelConfig:
        """The model's dimensions."""
        return PRESETS[self.preset]

    def items(self) -> tuple[Captioned, ...]:
        """Return what samples are drawn from. Raises UserError for an unknown name."""
        return select(self.subset, self.languages)

    def digest(self) -> str:
        """Return a SHA-256 over everything that decides the weights; a resume must match it."""
        facts = {**asdict(self), "model": asdict(self.config)}
        for name in ("checkpoint_every", "evaluate", "checkpoints"):
            del facts[name]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step (from 1): up, level, then down in a line."""
        up = step / WARMUP_STEPS
        decay_steps = max(1.0, self.steps * DECAY_SHARE)
        down = FINAL_SHARE + (1.0 - FINAL_SHARE) * (self.steps - step) / decay_steps
        return self.learning_rate * max(0.0, min(1.0, up, down))


def parse(arguments: Sequence[str] | None) -> Settings:
    """Read the command line; raises UserError, or exits with 2 as argparse does."""
    parser = argparse.ArgumentParser(
        prog="python -m model.train",
        description="Train the multimodal encoder-decoder on the embedded pictures and captions.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    flag = parser.add_argument
    flag("--preset", choices=list(PRESETS), default="tiny", help="size of the model")
    flag("--steps", type=int, default=400, help="steps of the whole run")
    flag("--precision", choices=PRECISIONS, default="fp32", help="of the matrix products")
    flag("--batch", type=int, default=128, help="samples per step, of all ranks together")
    flag("--seed", type=int, default=0, help="of the initial weights")
    flag("--data-seed", type=int, default=0, help="of the order and look of the samples")
    flag("--lr", type=float, default=4e-3, help="highest learning rate")
    flag("--text-share", type=float, default=0.1, help="share of text-only samples")
    flag("--subset", default="animals-food-objects", help="groups of emoji joined by '-', or all")
    flag("--languages", default="en", help="of the captions: codes joined by ','")
    flag("--checkpoint-every", type=int, default=20, help="steps from one checkpoint to the next")
    flag("--evaluate", type=int, default=0, metavar="N", help="describe N sprites at the end")
    flag("--checkpoints", metavar="URL", help="vault to use where Holdfast gives none")
    given = parser.parse_args(arguments)
    settings = Settings(
        preset=given.preset,
        steps=given.steps,
        precision=given.precision,
        batch=given.batch,
        seed=given.seed,
        data_seed=given.data_seed,
        learning_rate=given.lr,
        text_share=given.text_share,
        subset=given.subset,
        languages=tuple(given.languages.split(",")),
        checkpoint_every=given.checkpoint_every,
        evaluate=given.evaluate,
        checkpoints=given.checkpoints,
    )
    _refuse_nonsense(settings)
    return settings


def _refuse_nonsense(settings: Settings) -> None:
    """Raise UserError for what no run can be."""
    for name in ("steps", "batch", "checkpoint_every"):
        if getattr(settings, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    for name in ("seed", "data_seed", "evaluate"):
        if getattr(settings, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} must not be negative")
    if not 0.0 < settings.learning_rate < 1.0:
        raise UserError("--lr must lie between 0 and 1")
    if not 0.0 <= settings.text_share <= 1.0:
        raise UserError("--text-share must lie between 0 and 1")
    if settings.config.vocabulary != PRESETS["tiny"].vocabulary:
        raise UserError(
            f"--preset {settings.preset} has {settings.config.vocabulary} token ids, the embedded "
            f"tokenizer {PRESETS['tiny'].vocabulary}; the presets trained here: demo, tiny"
        )
    settings.items()
