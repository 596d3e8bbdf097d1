"""Where a model computes: the choice, and that everything a step needs goes there."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import PRESETS
from model.course import feeds
from model.data.loader import Loader, Want
from model.device import choose
from model.gradients import GradientBuffer, Totals
from model.rollback import Rescue
from model.settings import parse
from model.train import run_steps
from model.trainer import Place, Trainer
from model.transformer import EncoderDecoder
from orchestrator.errors import UserError
from orchestrator.runtime import training
from orchestrator.runtime.training import Run

pytestmark = pytest.mark.torch
REDUCE = GradientBuffer.reduce


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> list[torch.device]:
    """Pretend to have so many GPUs; return those that are made current."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_a_rank_takes_the_gpu_of_its_place_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = gpus(monkeypatch, 8)
    assert choose("auto", 3) == choose("cuda", 3) == torch.device("cuda", 3)
    assert chosen == [torch.device("cuda", 3)] * 2
    assert choose("cpu", 3) == torch.device("cpu")


def test_without_gpus_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert choose("auto", 5) == torch.device("cpu")
    with pytest.raises(UserError, match="this node has 0 GPUs"):
        choose("cuda")


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_more_ranks_than_gpus_is_an_error_not_two_ranks_on_one(
    monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(UserError, match=r"has 2 GPUs .* local rank 2 .* start fewer ranks"):
        choose(wanted, 2)


def test_every_tensor_of_a_batch_goes_along() -> None:
    settings = parse(["--preset", "demo", "--batch", "6", "--text-share", "0.5"])
    batch = Loader(feeds(settings), rank=0, world=1, workers=0).get(Want(0, 1))
    assert batch.prompt.vision is not None
    moved = batch.to(torch.device("meta"))
    assert tensors(batch)
    assert [one.shape for one in tensors(moved)] == [one.shape for one in tensors(batch)]
    assert {one.device.type for one in tensors(moved)} == {"meta"}
    assert (moved.positions, moved.predicted) == (batch.positions, batch.predicted)
    with torch.device("meta"):
        model = EncoderDecoder(PRESETS["demo"])
    assert model(moved.prompt, moved.inputs).shape[:2] == batch.inputs.shape


def tensors(value: Any) -> list[Tensor]:
    """Return all tensors in a tree of dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        return [one for field in fields(value) for one in tensors(getattr(value, field.name))]
    return []


def test_the_time_without_waiting_for_others_is_told_with_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[float | None] = []
    settings = parse(["--preset", "demo", "--batch", "2", "--steps", "3", "--no-guard"])
    trainer = Trainer(settings, Place())

    def slow(buffer: GradientBuffer, *args: Any) -> Totals:
        totals = REDUCE(buffer, *args)
        buffer.waited_s = 1000.0  # as if the others had come late
        return totals

    def beat(_run: Run, _step: int, own: float | None = None, **_rest: object) -> None:
        told.append(own)

    monkeypatch.setattr(Run, "heartbeat", beat)
    run = training.join()
    run_steps(run, trainer, Rescue(run, trainer))
    assert len(told) == 3
    assert all(own is not None and 0.0 < own < 60.0 for own in told)
    monkeypatch.setattr(GradientBuffer, "reduce", slow)
    trainer = Trainer(settings, Place())
    run_steps(run, trainer, Rescue(run, trainer))
    assert told[3:] == [0.0] * 3
