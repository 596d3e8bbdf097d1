"""The stages of a training run: what is learned from when, how long, how fast.

A curriculum is a TOML file of `[[stage]]` tables, or one of those in `model/curricula` by name.
The stage of a step is a function of the step alone, so a change of stage is nothing to be saved:
whoever resumes at a step is in its stage, with its mixture, lengths, learning rate and RoPE base.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError

HERE = Path(__file__).parent / "curricula"
TEXT_OBJECTIVES = ("prefix", "span-r", "span-x")  #: `model.data.objectives` says what they are
#: Sources of samples; `model.data.sources` makes them. `shards/CLASS` is one as well.
SOURCES = ("pictures", "groups", "names", "motions", "numbers", "passkeys")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage; every key of the TOML table is a field of the same name."""

    name: str
    steps: int
    batch: int = 128  #: samples per step, of all ranks together
    mixture: Mapping[str, float]  #: share of each source, by samples
    objectives: Mapping[str, float] = field(default_factory=dict)  #: of text sources
    prompt_max: int = 320  #: context of the encoder, positions
    answer_max: int = 48  #: context of the decoder, tokens
    learning_rate: float = 4e-3  #: at its highest
    final_share: float = 0.05  #: of the learning rate, at the stage's last step
    warmup: int = 10  #: steps
    decay_share: float = 0.5  #: of the steps, at the end
    rope_base: float | None = None  #: of the encoder; None: the preset's
    languages: tuple[str, ...] = ("en",)
    subset: str = "animals-food-objects"  #: groups of emoji
    shards: str | None = None  #: folder of tar shards
    passkey_lengths: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        """Refuse what no stage can be. Raises UserError naming stage and key."""
        for key in ("steps", "batch", "prompt_max", "answer_max"):
            if getattr(self, key) < 1:
                raise self._bad(f"{key} must be at least 1")
        if not 0.0 < self.learning_rate < 1.0:
            raise self._bad("learning_rate must lie between 0 and 1")
        if not 0.0 <= self.final_share <= 1.0 or not 0.0 <= self.decay_share <= 1.0:
            raise self._bad("final_share and decay_share must lie between 0 and 1")
        if not self.mixture or min(self.mixture.values()) <= 0.0:
            raise self._bad("mixture needs a source, and shares above 0")
        for objective in sorted(set(self.objectives) - set(TEXT_OBJECTIVES)):
            known = " ".join(TEXT_OBJECTIVES)
            raise self._bad(f"unknown objective {objective!r}; known: {known}")
        for source in sorted(set(self.mixture) - set(SOURCES)):
            if not source.startswith("shards/"):
                known = " ".join((*SOURCES, "shards/CLASS"))
                raise self._bad(f"unknown source {source!r} in the mixture; known: {known}")

    def _bad(self, what: str) -> UserError:
        return UserError(f"stage {self.name!r}: {what}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of the stage's step (from 1): up, level, down in a line."""
        up = step / max(1, self.warmup)
        decay_steps = max(1.0, self.steps * self.decay_share)
        down = self.final_share + (1.0 - self.final_share) * (self.steps - step) / decay_steps
        return self.learning_rate * max(0.0, min(1.0, up, down))


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a step of the run lies."""

    stage: int  #: number of the stage, from 0
    step: int  #: within the stage, from 1


@dataclass(frozen=True)
class Curriculum:
    """Stages, one after another."""

    stages: tuple[Stage, ...]

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> Moment:
        """Return where a step (from 1) lies; a step after the last belongs to the last stage."""
        before = 0
        for number, stage in enumerate(self.stages):
            if step <= before + stage.steps or number == len(self.stages) - 1:
                return Moment(number, step - before)
            before += stage.steps
        raise UserError("a curriculum needs a stage")

    def ends_stage(self, step: int) -> bool:
        """Say whether a step is the last of its stage."""
        moment = self.at(step)
        return moment.step == self.stages[moment.stage].steps

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step (from 1)."""
        moment = self.at(step)
        return self.stages[moment.stage].learning_rate_at(moment.step)


def read(name: str) -> Curriculum:
    """Return a curriculum by its name in `model/curricula`, or by the path of a TOML file.

    Raises UserError saying which key of which stage is wrong.
    """
    path = Path(name) if name.endswith(".toml") else HERE / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        known = " ".join(sorted(one.stem for one in HERE.glob("*.toml")))
        said = f"curriculum {name!r}: {error.strerror}; known ones: {known}, or a path to a .toml"
        raise UserError(said) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"curriculum {path}: {error}") from error
    return parse(table, str(path))


def parse(table: Mapping[str, Any], name: str) -> Curriculum:
    """Return the curriculum of a parsed TOML table."""
    stages = table.get("stage")
    if set(table) != {"stage"} or not isinstance(stages, list):
        raise UserError(f"curriculum {name}: expected [[stage]] tables and nothing else")
    return Curriculum(tuple(_stage(one, name) for one in stages))


def _stage(table: Mapping[str, Any], name: str) -> Stage:
    where = f"curriculum {name}, stage {table.get('name', '?')!r}"
    known = {one.name: str(one.type) for one in fields(Stage)}
    for key, value in table.items():
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; known: {' '.join(known)}")
        if not _fits(value, known[key]):
            raise UserError(f"{where}: {key} = {value!r} is not of the type {known[key]}")
    values: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in table.items()
    }
    for key in ("name", "steps", "mixture"):
        if key not in values:
            raise UserError(f"{where}: the key {key!r} is missing")
    return Stage(**values)


def _fits(value: Any, declared: str) -> bool:
    if declared.startswith("Mapping"):
        return isinstance(value, dict) and all(_is_number(item) for item in value.values())
    if declared.startswith("tuple[str"):
        return _is_list(value, str)
    if declared.startswith("tuple[int"):
        return _is_list(value, int)
    if declared.startswith("float"):
        return _is_number(value)
    return isinstance(value, str if declared.startswith("str") else int)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)
