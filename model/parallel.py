"""A model spread over ranks: data, context and tensor parallel on one device mesh.

    data     each rank has samples of its own; FSDP2 shards weights, gradients and moments
    context  each rank has a slice of every sequence; keys and values are gathered per layer, as
             Llama 3 does: the gathered part is small where query heads share key-value heads
    tensor   heads and feed-forward columns are split inside a layer (Megatron's plan)

Data and context together are the mesh that FSDP2 shards over: both see different positions, so
their gradients add up. Embeddings and head are not tensor parallel; FSDP2 shards them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from model.attention import Attention
from model.config import ModelConfig
from model.slices import Slice
from model.transformer import EncoderDecoder, draw
from orchestrator.errors import UserError


@dataclass(frozen=True, slots=True)
class Degrees:
    """How many ranks share each dimension of the work."""

    data: int = 1
    context: int = 1
    tensor: int = 1

    @property
    def world(self) -> int:
        """Ranks in all."""
        return self.data * self.context * self.tensor

    def check(self, config: ModelConfig, world: int) -> None:
        """Raise UserError if the ranks or the heads do not divide so."""
        if self.world != world:
            said = f"{self.data} x {self.context} x {self.tensor} (data, context, tensor)"
            raise UserError(f"{said} makes {self.world} ranks, but there are {world}")
        for what, count in (("key-value heads", config.kv_heads), ("d_ff", config.d_ff)):
            if count % self.tensor:
                raise UserError(f"{count} {what} do not divide into {self.tensor} tensor parts")


@dataclass(frozen=True)
class Spread:
    """Where this rank stands in the mesh."""

    mesh: DeviceMesh  #: named data, context, tensor
    shard: DeviceMesh  #: data and context as one dimension

    @classmethod
    def of(cls, degrees: Degrees, device: str) -> Spread:
        """Make the mesh; every rank calls it."""
        shape = (degrees.data, degrees.context, degrees.tensor)
        mesh = init_device_mesh(device, shape, mesh_dim_names=("data", "context", "tensor"))
        return cls(mesh, mesh["data", "context"]._flatten("shard"))

    @property
    def data_rank(self) -> int:
        """Which samples are this rank's."""
        return int(self.mesh.get_local_rank("data"))

    @property
    def context(self) -> Slice:
        """Which positions are this rank's."""
        size = self.mesh["context"].size()
        return Slice(int(self.mesh.get_local_rank("context")), int(size))


def spread(model: EncoderDecoder, where: Spread, precision: torch.dtype) -> None:
    """Split a model in place. Its weights may be on the meta device: `fill` draws them."""
    tensor = where.mesh["tensor"]
    for block in [*model.encoder, *model.decoder]:
        if tensor.size() > 1:
            parallelize_module(block, tensor, _plan(block))
    context = where.context
    model.slice, model.stems_always = context, True
    if context.world > 1:
        group = where.mesh.get_group("context")
        for module in model.modules():
            if isinstance(module, Attention):
                module.gather = _gatherer(group, context)
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    for block in [*model.encoder, *model.decoder, model]:
        fully_shard(block, mesh=where.shard, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # sums, for the loss is a share of the mean already; plain ones, for gloo has no other
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _plan(block: nn.Module) -> dict[str, ParallelStyle]:
    """Return Megatron's split of a block: columns, then rows; norms of heads go with the heads."""
    plan: dict[str, ParallelStyle] = {
        "feed_forward.gate": ColwiseParallel(),
        "feed_forward.up": ColwiseParallel(),
        "feed_forward.down": RowwiseParallel(),
    }
    for name, module in block.named_children():
        if isinstance(module, Attention):
            for part in ("query", "key", "value"):
                plan[f"{name}.{part}"] = ColwiseParallel()
            plan[f"{name}.out"] = RowwiseParallel()
            for part in ("query_norm", "key_norm"):
                plan[f"{name}.{part}"] = SequenceParallel(sequence_dim=1, use_local_output=True)
    return plan


class _Gather(torch.autograd.Function):
    """Puts slices of sequences together; its backward adds up what every rank asks of a slice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any, slice_: Slice) -> Tensor:
        """Return (batch, heads, length, head_dim) of (batch, heads, slice, head_dim)."""
        ctx.group, ctx.slice = group, slice_
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format)] * slice_.world
        parts = [part.clone() for part in parts]
        torch.distributed.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of this rank's slice."""
        whole = grads[0].contiguous()
        torch.distributed.all_reduce(whole, group=ctx.group)
        return ctx.slice.of(whole, 2).contiguous(), None, None


def _gatherer(group: Any, context: Slice) -> Any:
    def gather(x: Tensor) -> Tensor:
        out: Tensor = _Gather.apply(x, group, context)  # type: ignore[no-untyped-call]
        return out

    return gather


@torch.no_grad()
def fill(model: EncoderDecoder, seed: int) -> None:
    """Draw the weights of a split model: each rank its part of what one process would draw."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        whole = draw(name, parameter.shape, model.config, generator)
        parameter.copy_(like(whole, parameter) if isinstance(parameter, DTensor) else whole)


def like(whole: Tensor, parameter: DTensor) -> DTensor:
    """Return a tensor that every rank has, split as a parameter is; no communication."""
    mesh = parameter.device_mesh
    same = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return same.redistribute(mesh, parameter.placements)


@torch.no_grad()
def norm(tensors: Sequence[Tensor], world: int) -> Tensor:
    """Return the norm of tensors that are split in different ways; one all-reduce."""
    total = torch.zeros((), device=tensors[0].device)
    for tensor in tensors:
        copies, local = world, tensor
        if isinstance(tensor, DTensor):
            local = tensor.to_local()
            shape = tensor.device_mesh.shape
            for size, placement in zip(shape, tensor.placements, strict=True):
                copies //= 1 if placement.is_replicate() else int(size)
        total += local.float().square().sum() / copies
    torch.distributed.all_reduce(total)
    return total.sqrt()
