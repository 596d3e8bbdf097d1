"""One rank of a gang that shares one copy: FSDP2, tensor and context parallel; `parallel` splits.

The samples are those of any other gang: the step says which, the data rank says whose. Checkpoints
are sharded and hold whole tensors by name, so a gang of another size and shape continues them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional

from model import parallel
from model.course import DTYPES, Course, feeds
from model.data.loader import Loader
from model.data.samples import IGNORED, Batch
from model.gradients import Totals
from model.optimizer import Optimizer, orthogonalised
from model.parallel import Degrees, Spread
from model.settings import Settings
from model.transformer import EncoderDecoder

if TYPE_CHECKING:
    from orchestrator.runtime.training import Run
    from orchestrator.runtime.vault import Checkpoint

CPU = torch.device("cpu")


class ShardedOptimizer(Optimizer):
    """Muon needs whole matrices: each is gathered, orthogonalised, and split again."""

    def orthogonalise(self, directions: list[Tensor]) -> list[Tensor]:
        """Return the updates, split as the directions are."""
        whole = [one.full_tensor() if isinstance(one, DTensor) else one for one in directions]
        updates = orthogonalised(torch.stack(whole).to(self.precision)).float()
        return [
            parallel.like(update, one) if isinstance(one, DTensor) else update
            for update, one in zip(updates, directions, strict=True)
        ]


class ShardedTrainer(Course):
    """A share of weights and moments, and where they stand."""

    def __init__(self, settings: Settings, degrees: Degrees, device: torch.device = CPU) -> None:
        """Split the model over the process group. Raises UserError if it does not divide."""
        super().__init__(settings)
        self._world = torch.distributed.get_world_size()
        degrees.check(settings.config, self._world)
        self.where = Spread.of(degrees, device.type)
        self.device = device
        with torch.device("cpu" if settings.config.tied else "meta"):  # tied weights stay tied
            self.model = EncoderDecoder(settings.config)
        parallel.spread(self.model, self.where, DTYPES[settings.precision])
        if settings.config.tied:
            self.model.to(device)
        else:
            self.model.to_empty(device=device)
        parallel.fill(self.model, settings.seed)
        self.model.recompute = settings.recompute
        named = self.model.named_parameters()
        self.optimizer = ShardedOptimizer(named, DTYPES[settings.precision])
        self.loader = Loader(
            feeds(settings),
            rank=self.where.data_rank,
            world=degrees.data,
            workers=settings.workers,
            multiple=degrees.context,
        )
        self.seed_dice()

    def advance(self) -> Totals:
        """Do one step: samples, loss, gradients of all ranks, update."""
        number = self.step + 1
        self.model.encoder_theta = self.rope_base(number)
        batch = self.loader.get(self.batch_of(number)).to(self.device)
        counted = self._over_data(batch.predicted, batch.positions)
        predicted, positions = int(counted[0]), int(counted[1])
        loss = self._loss(batch) / predicted
        loss.backward()  # type: ignore[no-untyped-call]
        weights = float(parallel.norm(list(self.model.parameters()), self._world))
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = float(parallel.norm(gradients, self._world))
        for gradient in gradients:
            gradient.mul_(min(1.0, self.settings.clip / max(norm, 1e-12)))
        self.optimizer.step(number, self.settings.learning_rate_at(number))
        for parameter in self.model.parameters():
            parameter.grad = None
        whole = loss.detach().clone()
        torch.distributed.all_reduce(whole, group=self.where.shard.get_group())
        self.flops = self.count_flops(batch)
        totals = Totals(float(whole), predicted, positions, norm, weights)
        self.completed(number, totals.loss, positions)
        return totals

    def _loss(self, batch: Batch) -> Tensor:
        """Return the sum of the token losses at this rank's positions."""
        logits = self.model(batch.prompt, batch.inputs).flatten(0, 1).float()
        targets = self.model.slice.of(batch.targets, 1).flatten()
        return functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")

    def _over_data(self, *counts: int) -> Tensor:
        """Add up what the data ranks count; ranks of one data rank count the same."""
        summed = torch.tensor(counts, device=self.device)
        torch.distributed.all_reduce(summed, group=self.where.mesh.get_group("data"))
        return summed

    def state(self) -> dict[str, Any]:
        """Return what `orchestrator.runtime.dcp` saves, and loads into."""
        weights = {name: value.detach() for name, value in self.model.named_parameters()}
        optimizer = self.optimizer.state_dict()
        return {"model": weights, "optimizer": optimizer, "progress": json.dumps(self.progress())}

    def reset(self) -> None:
        """Go back to where training began."""
        parallel.fill(self.model, self.settings.seed)
        for moment in self.optimizer.state_dict().values():
            moment.zero_()
        self.take(Course(self.settings).progress())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load a commit of the vault, every part verified; every rank calls it."""
        from orchestrator.runtime import dcp

        state = self.state()
        dcp.load(checkpoint, state, alone=False)
        self.take(json.loads(state["progress"]))

    def save(self, run: Run) -> None:
        """Save a sharded checkpoint; every rank calls it."""
        from orchestrator.runtime import dcp

        dcp.save(run, self.step, self.state(), **self.attestation())

    def resume(self, run: Run) -> bool:
        """Load the commit to resume from, if there is one; every rank calls it."""
        from orchestrator.runtime import dcp

        state = self.state()
        loaded = dcp.resume(run, state)
        if loaded is None:
            return False
        self.take(json.loads(state["progress"]))
        run.attest(step=self.step, **self.attestation())
        return True
