"""Our Muon and Adam do what those of torch do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.optimizer import (
    BETA_FIRST,
    BETA_SECOND,
    MOMENTUM,
    WEIGHT_DECAY,
    Optimizer,
    orthogonalised,
)

RATE = 0.01


def parameters(seed: int) -> dict[str, nn.Parameter]:
    dice = torch.Generator().manual_seed(seed)
    shapes = {
        "encoder.0.up": (24, 16),
        "decoder.0.down": (16, 24),
        "embedding": (10, 16),
        "g": (16,),
    }
    return {
        name: nn.Parameter(torch.randn(shape, generator=dice)) for name, shape in shapes.items()
    }


def throw_gradients(values: dict[str, nn.Parameter], seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    for value in values.values():
        value.grad = torch.randn(value.shape, generator=dice)


@pytest.mark.filterwarnings("ignore")
def test_it_agrees_with_the_optimizers_of_torch() -> None:
    ours, theirs = parameters(0), parameters(0)
    mine = Optimizer(ours.items())
    hidden = [theirs["encoder.0.up"], theirs["decoder.0.down"]]
    muon = torch.optim.Muon(
        hidden,
        lr=RATE,
        weight_decay=WEIGHT_DECAY,
        momentum=MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    rest = [theirs["embedding"], theirs["g"]]
    adam = torch.optim.Adam(rest, lr=RATE, betas=(BETA_FIRST, BETA_SECOND))
    for step in range(1, 4):
        throw_gradients(ours, step)
        throw_gradients(theirs, step)
        mine.step(step, RATE)
        muon.step()  # type: ignore[no-untyped-call]
        adam.step()
    for name in ("embedding", "g"):
        assert torch.allclose(ours[name], theirs[name], atol=1e-6)
    for name in ("encoder.0.up", "decoder.0.down"):  # torch's Muon computes in bfloat16
        assert torch.allclose(ours[name], theirs[name], atol=2e-3)


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 12, 12)])
def test_an_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.3


def test_its_state_is_one_moment_for_matrices_and_two_for_the_rest() -> None:
    names = set(Optimizer(parameters(0).items()).state_dict())
    assert "momentum.encoder.0.up" in names
    assert {"first.embedding", "second.embedding", "first.g", "second.g"} <= names
    assert len(names) == 6
