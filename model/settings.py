"""What a training run is asked to do, read from the command line.

Nothing here imports torch: `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from model import curriculum
from model.config import PRESETS, ModelConfig
from model.curriculum import Curriculum, Stage
from model.data.emoji import select
from orchestrator.errors import UserError

PRECISIONS = ("fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
EMBEDDED_VOCABULARY = 4_096
CLIP = 1.0
#: Flags that describe the one stage of a run without `--curriculum`, and their defaults.
STAGE_FLAGS: Mapping[str, int | float | str] = {
    "steps": 400,
    "batch": 128,
    "lr": 4e-3,
    "text_share": 0.1,
    "subset": "animals-food-objects",
    "languages": "en",
}
#: What the weights do not depend on, and so is left out of the digest.
_ASIDE = (
    *("checkpoint_every", "evaluate", "checkpoints", "workers", "mfu", "profile_to", "guard"),
    *("tokenizer", "losses", "device"),
)


@dataclass(frozen=True)
class Settings:
    """One training run. Its `digest` covers what decides the weights."""

    preset: str
    curriculum: Curriculum
    device: str  #: one of `DEVICES`; auto: the GPU of the local rank where there is one
    precision: str  #: of the matrix products: a key of `PRECISIONS`; weights are always fp32
    seed: int  #: of the initial weights
    data_seed: int  #: of the order and the look of the samples
    clip: float  #: highest norm of the gradient
    compile: bool  #: forward and backward through torch.compile
    spread: tuple[int, int, int] | None  #: data, context and tensor ranks of one sharded copy
    recompute: bool  #: activations of a block in backward instead of keeping them
    guard: bool  #: watch for spikes of the loss, and roll back
    workers: int  #: processes that make samples; 0: this one does
    checkpoint_every: int  #: steps
    evaluate: int  #: held-out samples of each source at the end
    checkpoints: str | None  #: URL of a vault, where Holdfast gives none
    tokenizer: str | None  #: a tiktoken rank file; None: the embedded one
    mfu: bool  #: measure the peak of this processor first, say the share of it that is used
    profile_to: str | None  #: folder for a profile of the step after each SIGUSR2
    losses: str | None  #: file that gets a line of JSON a step

    @property
    def config(self) -> ModelConfig:
        """The model's dimensions."""
        return PRESETS[self.preset]

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.curriculum.steps

    def digest(self) -> str:
        """Return a SHA-256 over everything that decides the weights; a resume must match it."""
        facts = {**asdict(self), "model": asdict(self.config)}
        for name in _ASIDE:
            del facts[name]
        if self.tokenizer is not None:
            facts["ranks"] = hashlib.sha256(Path(self.tokenizer).read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step (from 1)."""
        return self.curriculum.learning_rate_at(step)


def parse(arguments: Sequence[str] | None) -> Settings:
    """Read the command line; raises UserError, or exits with 2 as argparse does."""
    given = _parser().parse_args(arguments)
    settings = Settings(
        preset=given.preset,
        curriculum=_curriculum(given),
        device=given.device,
        precision=given.precision,
        seed=given.seed,
        data_seed=given.data_seed,
        clip=given.clip,
        compile=given.compile,
        spread=_spread(given.spread),
        recompute=given.recompute,
        guard=given.guard,
        workers=given.workers,
        checkpoint_every=given.checkpoint_every,
        evaluate=given.evaluate,
        checkpoints=given.checkpoints,
        tokenizer=given.tokenizer,
        mfu=given.mfu,
        profile_to=given.profile_to,
        losses=given.losses,
    )
    _refuse_nonsense(settings)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model.train",
        description="Train the multimodal encoder-decoder, by default on the embedded data.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    flag, stage = parser.add_argument, STAGE_FLAGS
    flag("--preset", choices=list(PRESETS), default="tiny", help="size of the model")
    flag("--curriculum", help="stages: a name in model/curricula or a TOML file; else one stage of")
    flag("--steps", type=int, help=f"steps of the one stage ({stage['steps']})")
    flag("--batch", type=int, help=f"samples per step, all ranks together ({stage['batch']})")
    flag("--lr", type=float, help=f"highest learning rate ({stage['lr']})")
    flag("--text-share", type=float, help=f"share of text-only samples ({stage['text_share']})")
    flag("--subset", help=f"groups of emoji joined by '-', or all ({stage['subset']})")
    flag("--languages", help=f"of the captions: codes joined by ',' ({stage['languages']})")
    flag("--device", choices=DEVICES, default="auto", help="auto: a GPU of its own, else the CPU")
    flag("--precision", choices=PRECISIONS, default="fp32", help="of the matrix products")
    flag("--seed", type=int, default=0, help="of the initial weights")
    flag("--data-seed", type=int, default=0, help="of the order and look of the samples")
    flag("--clip", type=float, default=CLIP, help="highest norm of the gradient")
    flag("--compile", action="store_true", help="through torch.compile")
    flag("--spread", metavar="D,C,T", help="shard one copy over D data, C context, T tensor ranks")
    flag("--recompute", action="store_true", help="activations in backward: less memory, slower")
    flag("--guard", action=argparse.BooleanOptionalAction, default=True, help="roll spikes back")
    flag("--workers", type=int, default=0, help="processes that make samples; 0: none")
    flag("--checkpoint-every", type=int, default=20, help="steps from one checkpoint to the next")
    flag("--evaluate", type=int, default=0, metavar="N", help="held-out samples at the end")
    flag("--checkpoints", metavar="URL", help="vault to use where Holdfast gives none")
    flag("--tokenizer", metavar="FILE", help="tiktoken rank file instead of the embedded one")
    flag("--mfu", action="store_true", help="measure the peak first, say the share that is used")
    flag("--profile-to", metavar="FOLDER", help="write a profile of a step after each SIGUSR2")
    flag("--losses", metavar="FILE", help="append step, loss and CPU seconds as lines of JSON")
    return parser


def _curriculum(given: argparse.Namespace) -> Curriculum:
    wishes = {name: getattr(given, name) for name in STAGE_FLAGS}
    if given.curriculum is not None:
        for name, value in wishes.items():
            if value is not None:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} and --curriculum exclude each other; change its file")
        return curriculum.read(given.curriculum)
    wishes = {name: STAGE_FLAGS[name] if v is None else v for name, v in wishes.items()}
    if not 0.0 <= wishes["text_share"] <= 1.0:
        raise UserError("--text-share must lie between 0 and 1")
    shares = {"pictures": 1.0 - wishes["text_share"], "names": wishes["text_share"]}
    stage = Stage(
        name="run",
        steps=_positive("steps", wishes["steps"]),
        batch=_positive("batch", wishes["batch"]),
        learning_rate=_rate(wishes["lr"]),
        mixture={name: share for name, share in shares.items() if share > 0.0},
        subset=wishes["subset"],
        languages=tuple(wishes["languages"].split(",")),
    )
    return Curriculum((stage,))


def _spread(given: str | None) -> tuple[int, int, int] | None:
    if given is None:
        return None
    try:
        data, context, tensor = (_positive("spread", int(part)) for part in given.split(","))
    except ValueError as error:
        raise UserError(f"--spread {given}: expected three numbers, as in 4,1,2") from error
    return data, context, tensor


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    return value


def _rate(value: float) -> float:
    if not 0.0 < value < 1.0:
        raise UserError("--lr must lie between 0 and 1")
    return value


def _refuse_nonsense(settings: Settings) -> None:
    """Raise UserError for what no run can be."""
    _positive("checkpoint_every", settings.checkpoint_every)
    for name in ("seed", "data_seed", "evaluate", "workers"):
        if getattr(settings, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} must not be negative")
    if settings.spread is not None and (settings.compile or settings.evaluate):
        raise UserError("--spread goes with neither --compile nor --evaluate as yet")
    if settings.clip <= 0.0:
        raise UserError("--clip must be above 0")
    vocabulary = settings.config.vocabulary
    if settings.tokenizer is None and vocabulary != EMBEDDED_VOCABULARY:
        raise UserError(
            f"--preset {settings.preset} has {vocabulary} token ids, the embedded tokenizer "
            f"{EMBEDDED_VOCABULARY}; give a rank file with --tokenizer, or a preset: demo, tiny"
        )
    for stage in settings.curriculum.stages:
        select(stage.subset, stage.languages)
