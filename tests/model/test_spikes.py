"""Spikes: what is one, what is none, and that going back leaves nothing of it."""

from __future__ import annotations

import copy
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from model.data.loader import Want
from model.gradients import Totals
from model.rollback import ROLLBACKS_MAX, Rescue
from model.settings import Settings, parse
from model.spikes import FEWEST, ROW, Sentinel, Spoiled
from model.train import run_steps
from model.trainer import Place, Trainer
from orchestrator.errors import PermanentError
from orchestrator.runtime import training

unhurried = given_settings(deadline=None)  # the machine may be busy


def falling(seed: int, noise: float, steps: int = 150) -> list[float]:
    """Losses as they are: quick at first, then slow, with noise from batch to batch."""
    dice = np.random.default_rng(seed)
    smooth = [
        0.3 + 8.0 * math.exp(-step / 12) + 1.5 * math.exp(-step / 80) for step in range(steps)
    ]
    return [loss * (1 + noise * dice.standard_normal()) for loss in smooth]


def verdicts(losses: list[float], norm: float = 1.0) -> list[Spoiled | None]:
    sentinel = Sentinel()
    return [sentinel.judge(loss, norm, 100.0) for loss in losses]


@unhurried
@given(st.integers(0, 10_000), st.floats(0.0, 0.08))
def test_noise_is_no_spike(seed: int, noise: float) -> None:
    assert not any(verdicts(falling(seed, noise)))


@unhurried
@given(st.integers(0, 10_000), st.integers(FEWEST + 1, 149))
def test_a_loss_far_above_its_level_is_one_at_once(seed: int, at: int) -> None:
    losses = falling(seed, 0.03)
    losses[at] = 2.5 * max(losses[max(0, at - 16) : at]) + 1.0
    said = verdicts(losses)
    assert said[at] is not None
    assert not any(said[:at])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_spoiled_from_the_first_step(value: float) -> None:
    said = Sentinel().judge(value, 1.0, 1.0)
    assert said is not None
    assert "not finite" in said.reason
    assert Sentinel().judge(1.0, value, 1.0) is not None
    assert Sentinel().judge(1.0, 1.0, value) is not None


def test_losses_that_stay_high_are_spoiled_together() -> None:
    sentinel = Sentinel()
    for loss in [1.0, 1.02, 0.98, 1.01] * 5:
        assert sentinel.judge(loss, 1.0, 1.0) is None
    said = [sentinel.judge(1.4, 1.0, 1.0) for _ in range(ROW)]
    assert said[:-1] == [None] * (ROW - 1)
    assert said[-1] is not None
    assert said[-1].steps == ROW


def test_a_steep_gradient_confirms_a_high_loss_at_once() -> None:
    sentinel = Sentinel()
    for loss in [1.0, 1.02, 0.98, 1.01] * 5:
        sentinel.judge(loss, 1.0, 1.0)
    assert sentinel.judge(1.4, 50.0, 1.0) is not None


def test_what_it_remembers_survives_a_restart() -> None:
    sentinel, restarted = Sentinel(), Sentinel()
    for loss in falling(1, 0.05)[:60]:
        sentinel.judge(loss, 1.0, 1.0)
    restarted.load(json.loads(json.dumps(sentinel.state())))
    assert restarted == sentinel


# ------------------------------------------------------------------------ going back


class Harmed(Trainer):
    """A trainer to which something happens at one step, once or whenever it comes there."""

    def __init__(self, settings: Settings, at: int, *, always: bool = False) -> None:
        super().__init__(settings, Place())
        self.at, self.always, self.happened = at, always, 0

    def advance(self) -> Totals:
        if self.step + 1 == self.at and (self.always or not self.happened):
            self.happened += 1
            weight = dict(self.model.named_parameters())["encoder.0.feed_forward.up.weight"].data
            weight[0, 0] = flipped(float(weight[0, 0]), 30)
        return super().advance()


def flipped(value: float, bit: int) -> float:
    (whole,) = struct.unpack("<I", struct.pack("<f", value))
    return float(struct.unpack("<f", struct.pack("<I", whole ^ (1 << bit)))[0])


def settings(*extra: str) -> Settings:
    few = ["--preset", "demo", "--steps", "16", "--batch", "4", "--subset", "food"]
    return parse([*few, "--checkpoint-every", "4", *extra])


def rescued(trainer: Trainer, vault: Path | None) -> Rescue:
    run = training.join(None if vault is None else str(vault))
    rescue = Rescue(run, trainer)
    run_steps(run, trainer, rescue)
    run.close()
    return rescue


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        torch.equal(one[part][name], other[part][name])
        for part in ("model", "optimizer")
        for name in one[part]
    )


@pytest.mark.parametrize("kept", [True, False])
def test_nothing_is_left_of_a_flipped_bit_but_a_skipped_batch(tmp_path: Path, kept: bool) -> None:
    torch.set_num_threads(1)
    harmed = Harmed(settings(), at=11)
    rescue = rescued(harmed, tmp_path if kept else None)
    (entry,) = rescue.audit
    assert entry.at_step == 11
    assert entry.to_step == (8 if kept else 0)  # the newest checkpoint, or the beginning
    assert entry.skipped == ((0, 11),)
    clean = Trainer(settings(), Place())
    while clean.step < 16:
        if clean.step == 10:  # as if batch 11 did not exist
            clean.skipped = [Want(0, 11)]
        clean.advance()
    assert same(harmed.state(), clean.state())


def test_a_run_that_was_rolled_back_can_be_resumed(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    harmed = Harmed(settings(), at=11)
    rescued(harmed, tmp_path)
    resumed = Trainer(settings(), Place())
    assert resumed.resume(training.join(str(tmp_path)))
    assert resumed.step == 16
    assert resumed.skipped == [Want(0, 11)]
    assert same(copy.deepcopy(harmed.state()), resumed.state())


def test_damage_that_comes_back_goes_further_back_and_then_ends_the_run(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    harmed = Harmed(settings("--checkpoint-every", "1"), at=3, always=True)
    with pytest.raises(PermanentError, match="rollbacks did not help"):
        rescued(harmed, tmp_path)
    assert harmed.happened == ROLLBACKS_MAX + 1


def test_a_healthy_run_is_never_rolled_back(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    trainer = Trainer(settings(), Place())
    assert not rescued(trainer, tmp_path).audit
    assert trainer.step == 16
