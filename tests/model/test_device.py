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
from model.settings import parse
from model.transformer import EncoderDecoder
from orchestrator.errors import UserError

pytestmark = pytest.mark.torch


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
