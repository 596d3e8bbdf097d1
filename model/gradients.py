"""Gradients of a gang in one buffer of fixed layout, summed by one all-reduce.

Not DistributedDataParallel: its buckets depend on the order in which gradients arrive. Here every
gradient has its place, the sums run over the same numbers in the same order in every run, so a gang
that restarts from a checkpoint repeats the weights to the bit. What the loss needs travels in the
last places of the same buffer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_TAIL = 4  # loss, predicted tokens, positions, norm of the weights


@dataclass(frozen=True)
class Totals:
    """What a step amounted to, over all ranks."""

    loss: float  #: mean cross-entropy per predicted token, nats
    predicted: int  #: tokens the loss was taken over
    positions: int  #: positions computed, encoder and decoder together, without padding
    norm: float  #: of the gradient of the mean loss, before it was clipped
    weights: float  #: norm of the weights that the loss was taken at, mean over the ranks


class GradientBuffer:
    """Holds every parameter's gradient as a view of one flat tensor."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.waited_s = 0.0  #: for the other ranks, in the last `reduce`
        size = sum(parameter.numel() for parameter in parameters)
        self._flat = torch.zeros(size + _TAIL, device=parameters[0].device)
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        offset = 0
        for parameter in parameters:
            view = self._flat[offset : offset + parameter.numel()].view_as(parameter)
            self._views.append((parameter, view))
            offset += parameter.numel()

    def clear(self) -> None:
        """Zero all gradients and let backward add into the buffer."""
        self._flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    def reduce(self, loss_sum: float, predicted: int, positions: int, norm_max: float) -> Totals:
        """Sum over the ranks, divide by the predicted tokens of all of them, clip the norm.

        Backward must have run on the *sum* of this rank's token losses: the mean is taken here,
        once, so that a rank with longer answers counts for more, as it does with one rank.
        """
        weights = weights_norm([parameter for parameter, _ in self._views])
        tail = [loss_sum, float(predicted), float(positions), weights]
        self._flat[-_TAIL:] = torch.tensor(tail)
        ranks = 1
        _finish(self._flat)  # what follows is waiting, what came before is this rank's own
        began = time.monotonic()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._flat)
            ranks = torch.distributed.get_world_size()
        loss, count, everywhere, weights = self._flat[-_TAIL:].tolist()
        self.waited_s = time.monotonic() - began
        gradients = self._flat[:-_TAIL]
        norm = float(gradients.norm()) / count
        gradients.mul_(min(1.0, norm_max / max(norm, 1e-12)) / count)
        return Totals(loss / count, int(count), int(everywhere), norm, weights / ranks)


def _finish(tensor: Tensor) -> None:
    """Wait until a device has computed what was asked of it so far."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


@torch.no_grad()
def weights_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the norm of all weights of this rank."""
    return float(torch.stack(torch._foreach_norm(list(parameters))).norm())
