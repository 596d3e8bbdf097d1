"""Forward, backward, update and profile of one model on one device; see `gpu_model`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch._dynamo
from torch import Tensor
from torch.nn import functional

from model.accounting import Positions, training_flops
from model.config import TEXT, ModelConfig
from model.transformer import EncoderDecoder, Prompt

if TYPE_CHECKING:
    from bench.gpu_device import Bench

WARM, TIMED = 2, 4  #: calls of a micro-batch
ACCUMULATE = 8  #: micro-batches of the whole step
KERNELS = 25  #: rows of the profile


@dataclass(frozen=True, slots=True)
class Case:
    """One micro-batch."""

    batch: int
    encoder: int
    decoder: int
    recompute: bool = False  #: activations in backward
    compiled: bool = True

    @property
    def positions(self) -> int:
        """Positions of both stacks."""
        return self.batch * (self.encoder + self.decoder)


class Training:
    """A model, its optimizer, and the clock on both."""

    def __init__(self, bench: Bench, compiles: bool) -> None:
        self.bench, self.compiles = bench, compiles
        self.model, self.optimizer = bench.build()
        self.model.stems_always = True  # what has a gradient is the same in every micro-batch
        self.entropy = {False: _entropy, True: torch.compile(_entropy, dynamic=False)}
        self.steps = 0
        self.best = float("inf")  #: seconds per position of the quickest case
        self.case: Case | None = None  #: the quickest

    def micro_batch(self, case: Case) -> Callable[[], Tensor]:
        """Return forward and backward of one micro-batch; gradients add up."""
        prompts, answers = tokens(self.bench.config, case, self.bench.dice)
        compiled = case.compiled and self.compiles
        self.model.recompute = case.recompute

        def work() -> Tensor:
            with self.kernels():
                value = loss(self.model, prompts, answers, self.entropy[compiled])
                value.backward()  # type: ignore[no-untyped-call]
            return value.detach()

        for block in [*self.model.encoder, *self.model.decoder]:
            # one block of each kind is compiled, not the whole depth; in place, names stay
            block._compiled_call_impl = None
            if compiled:
                block.compile(dynamic=False)
        return work

    def kernels(self) -> Any:
        """Prefer the attention that was quickest."""
        from torch.nn.attention import sdpa_kernel

        known = self.bench.backends
        return sdpa_kernel(known, set_priority=True) if known else nullcontext()

    def measure(self, case: Case) -> dict[str, Any]:
        """Time forward and backward."""
        bench = self.bench
        self.clear()
        if bench.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        work = self.micro_batch(case)
        first = bench.seconds(work, 1)[0]
        bench.seconds(work, WARM - 1)
        took = statistics.median(bench.seconds(work, TIMED))
        if took / case.positions < self.best:
            self.best, self.case = took / case.positions, case
        memory = torch.cuda.max_memory_allocated() if bench.cuda else 0
        return {
            **asdict(case),
            "first_s": first,
            **self.share(case, took),
            "loss": float(work()),
            "bytes": memory,
            "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"],
        }

    def share(self, case: Case, took: float) -> dict[str, float]:
        """Return what a time means."""
        config, at = self.bench.config, Positions(case.encoder, case.decoder)
        done = case.batch * training_flops(config, at)
        wide = config.heads * config.head_dim
        skipped = 3 * 2 * case.batch * config.decoder_layers * case.decoder**2 * wide
        return {
            "seconds": took,
            "tokens_per_second": case.positions / took,
            "flops": done / took,
            "mfu": done / took / self.bench.peak,
            "mfu_causal_halved": (done - skipped) / took / self.bench.peak,
        }

    def clear(self) -> None:
        """Drop all gradients."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def update(self) -> None:
        """Apply the gradients."""
        self.steps += 1
        self.optimizer.step(self.steps, 1e-4)
        self.clear()

    def whole_step(self) -> dict[str, Any]:
        """Time an update, and a step: `ACCUMULATE` of the quickest micro-batch, then an update."""
        assert self.case is not None, "no micro-batch ran"
        case = self.case
        work = self.micro_batch(case)

        def step() -> None:
            for _ in range(ACCUMULATE):
                work()
            self.update()

        work()
        update = self.bench.seconds(self.update, 1)[0]
        before = float(work())
        self.clear()
        took = self.bench.seconds(step, 1)[0]
        many = replace(case, batch=case.batch * ACCUMULATE)
        after = float(work())
        said = {"micro_batches": ACCUMULATE, "update_s": update, "loss_before": before}
        return {**asdict(case), **said, "loss_after": after, **self.share(many, took)}

    def profile(self) -> dict[str, Any]:
        """Say where the time of the quickest micro-batch goes."""
        from torch.profiler import ProfilerActivity, profile

        assert self.case is not None, "no micro-batch ran"
        work = self.micro_batch(self.case)
        work()
        activities = [ProfilerActivity.CPU]
        if self.bench.cuda:
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as seen:
            work()
            self.bench.sync()
        rows = []
        for one in seen.key_averages():
            on_device = getattr(one, "self_device_time_total", 0.0)
            spent = on_device if self.bench.cuda else one.self_cpu_time_total
            on_kernel = str(getattr(one, "device_type", "")).endswith("CUDA") and not getattr(
                one, "is_user_annotation", False
            )
            if spent > 0.0 and on_kernel == self.bench.cuda:
                rows.append((spent, one.key[:160], one.count))
        rows.sort(reverse=True)
        total = sum(spent for spent, _, _ in rows)
        kernels = [
            {"kernel": key, "calls": count, "ms": spent / 1e3, "share": spent / total}
            for spent, key, count in rows[:KERNELS]
        ]
        return {**asdict(self.case), "ms": total / 1e3, "kernels": kernels}


def tokens(config: ModelConfig, case: Case, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return random prompts and answers."""
    prompts, answers = (
        torch.randint(
            0, config.vocabulary, (case.batch, length), generator=dice, device=dice.device
        )
        for length in (case.encoder, case.decoder)
    )
    return prompts, answers


def loss(
    model: EncoderDecoder,
    prompts: Tensor,
    answers: Tensor,
    entropy: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the mean loss of texts without padding."""
    prompt = Prompt(prompts, torch.full_like(prompts, TEXT))
    logits = model(prompt, functional.pad(answers[:, :-1], (1, 0)))
    return (entropy or _entropy)(logits.flatten(0, 1), answers.flatten())


def _entropy(logits: Tensor, answers: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), answers)
