"""Muon for the hidden matrices, Adam for the rest: one learning rate, plain tensors as state.

Both exist in `torch.optim`, and a test holds ours equal to those. They are written out here since
constructing any optimizer of torch 2.13 imports its compiler, 1.0 s that every rank would pay at
every restart, and because torch's Muon always computes in bfloat16, which is slow on processors
without instructions for it. Muon keeps one moment instead of two: checkpoints are a third smaller.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
WEIGHT_DECAY = 0.1  #: of the hidden matrices only
BETA_FIRST, BETA_SECOND, EPSILON = 0.9, 0.95, 1e-8
#: Keller Jordan's quintic: singular values end near 1, not at it, which is enough.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5
_GROUP_MAX = 2**28  #: numbers orthogonalised together: bounds what Muon needs beside its moments


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Say whether Muon updates it: a matrix inside a block, neither embedding, stem nor head."""
    return parameter.dim() == 2 and name.startswith(("encoder.", "decoder."))


class Optimizer:
    """Updates a model's parameters in place from their gradients."""

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Make zero moments; `precision` is that of Muon's products."""
        parameters = dict(named_parameters)
        hidden = {name for name, value in parameters.items() if is_hidden_matrix(name, value)}
        self._hidden = {name: parameters[name] for name in parameters if name in hidden}
        self._rest = {name: parameters[name] for name in parameters if name not in hidden}
        self.precision = precision
        self._moments = {f"momentum.{name}": _zeros(value) for name, value in self._hidden.items()}
        for name, value in self._rest.items():
            self._moments[f"first.{name}"] = _zeros(value)
            self._moments[f"second.{name}"] = _zeros(value)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments by name: the live tensors, not copies."""
        return dict(self._moments)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over saved moments. Raises KeyError if one is missing."""
        for name, moment in self._moments.items():
            moment.copy_(state[name])

    @torch.no_grad()
    def step(self, number: int, learning_rate: float) -> None:
        """Apply the gradients of step `number` (from 1, for Adam's bias correction)."""
        self._step_muon(learning_rate)
        self._step_adam(number, learning_rate)

    def _step_muon(self, learning_rate: float) -> None:
        by_shape: dict[torch.Size, list[str]] = {}
        for name, parameter in self._hidden.items():
            by_shape.setdefault(parameter.shape, []).append(name)
        for shape, names in by_shape.items():
            many = max(1, _GROUP_MAX // shape.numel())
            for first in range(0, len(names), many):
                self._step_muon_group(names[first : first + many], learning_rate)

    def _step_muon_group(self, names: list[str], learning_rate: float) -> None:
        """Update matrices of one shape together: one batched product instead of many small."""
        directions = []
        for name in names:
            gradient, moment = self.gradient(name), self._moments[f"momentum.{name}"]
            moment.lerp_(gradient, 1.0 - MOMENTUM)
            directions.append(gradient.lerp(moment, MOMENTUM))
        for name, update in zip(names, self.orthogonalise(directions), strict=True):
            parameter = self._hidden[name]
            # 0.2 sqrt(longer side): updates as large as Adam's, so one learning rate serves both
            scale = 0.2 * math.sqrt(max(parameter.shape))
            parameter.mul_(1.0 - learning_rate * WEIGHT_DECAY)
            parameter.add_(update, alpha=-learning_rate * scale)

    def gradient(self, name: str) -> Tensor:
        """Return the gradient of a parameter. Raises RuntimeError if it has none."""
        parameter = self._hidden[name] if name in self._hidden else self._rest[name]
        return _gradient(parameter)

    def orthogonalise(self, directions: list[Tensor]) -> list[Tensor]:
        """Return the updates of matrices of one shape."""
        return list(orthogonalised(torch.stack(directions).to(self.precision)).float())

    def _step_adam(self, number: int, learning_rate: float) -> None:
        first_share, second_share = 1.0 - BETA_FIRST**number, 1.0 - BETA_SECOND**number
        for name, parameter in self._rest.items():
            gradient = self.gradient(name)
            first, second = self._moments[f"first.{name}"], self._moments[f"second.{name}"]
            first.lerp_(gradient, 1.0 - BETA_FIRST)
            second.mul_(BETA_SECOND).addcmul_(gradient, gradient, value=1.0 - BETA_SECOND)
            spread = (second / second_share).sqrt_().add_(EPSILON)
            parameter.addcdiv_(first, spread, value=-learning_rate / first_share)


class MasterOptimizer(Optimizer):
    """Updates float32 copies of a model in bfloat16, and rounds them back into it.

    A change is often smaller than bfloat16 can add to a weight; without the copies it is lost.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Copy the weights; Muon's products are in bfloat16."""
        self._live = dict(named_parameters)
        self._copies = {name: nn.Parameter(v.detach().float()) for name, v in self._live.items()}
        super().__init__(self._copies.items(), torch.bfloat16)

    def gradient(self, name: str) -> Tensor:
        """Return the gradient of the live weight, in float32."""
        return _gradient(self._live[name]).float()

    @torch.no_grad()
    def step(self, number: int, learning_rate: float) -> None:
        """Update the copies, then the weights."""
        super().step(number, learning_rate)
        for name, parameter in self._live.items():
            parameter.copy_(self._copies[name])


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return (n, rows, columns) with each matrix's singular values pushed to about 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x


def _zeros(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter, requires_grad=False)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("a parameter has no gradient; was backward called?")
    return parameter.grad
