"""Model-FLOPs utilisation of one accelerator, in a bounded time.

    python -m bench.gpu_model --out FILE [--device cuda] [--preset edge-7b] [--limit-s 150]

Measured in this order, each part caught, reported and written to FILE before the next begins:
the card, the peak of bfloat16 products on random data, the kernels of attention, forward and
backward of micro-batches, a profile, the optimizer, a whole step with accumulated gradients, and
whether the model computes there what it computes on a CPU. After the limit the process ends.

The state is that of real training: bfloat16 weights and gradients, float32 copies and moments, Muon
and Adam. If the preset does not fit beside the activations of the smallest micro-batch, it loses
layers, and the report says how many are left. Operations are our closed form's, which counts
causal attention in full, as PaLM's convention does; the share with half of it stands beside.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import Tensor
from torch.nn import functional

from model.accounting import Positions, count_parameters, training_flops
from model.config import PRESETS, TEXT, ModelConfig
from model.optimizer import MasterOptimizer
from model.transformer import EncoderDecoder, Prompt, build, deviation

WARM, TIMED = 2, 4  #: calls of a micro-batch
PEAK_S = 1.0  #: how long one shape of product is repeated: clocks fall under load
ACCUMULATE = 8  #: micro-batches of the whole step
BYTES_PER_POSITION = 2.3e6 / (16 * 4096)  #: of activations, per layer and width: kept, compiled
SPARE = 0.93  #: of the memory, before it is called full
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


ON_GPU = (
    Case(2, 4096, 4096),
    Case(1, 4096, 4096),
    Case(4, 4096, 4096, recompute=True),
    Case(3, 4096, 4096),
    Case(1, 4096, 4096, compiled=False),
)
ON_CPU = (Case(2, 48, 32), Case(2, 48, 32, recompute=True), Case(2, 48, 32, compiled=False))


class Report:
    """What is known so far, in a file that is whole at any moment."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self.path, self.ends_at = path, time.monotonic() + limit_s
        self.parts: dict[str, Any] = {}
        self._watch = threading.Timer(limit_s, self._give_up)
        self._watch.daemon = True
        self._watch.start()

    def _give_up(self) -> None:
        self.write("limit", "reached")
        os._exit(3)

    def close(self) -> None:
        """Say that everything was done in time."""
        self._watch.cancel()
        self.write("limit", "not reached")

    def write(self, name: str, said: Any) -> None:
        """Add a part and flush."""
        self.parts[name] = said
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(self.parts, indent=1))
        beside.replace(self.path)
        print(f"{name}: {json.dumps(said)[:2000]}", flush=True)

    def part(self, name: str, work: Callable[[], Any], limit_s: int) -> Any:
        """Do one part; what goes wrong is its result, and None is returned."""
        left = self.ends_at - time.monotonic()
        if left < 5.0:
            self.write(name, {"skipped": "no time left"})
            return None
        started = time.monotonic()
        try:
            with alarm(max(1, min(limit_s, int(left) - 2))):
                said = work()
        except Exception as error:  # noqa: BLE001 - a part that fails must not lose the others
            text = f"{type(error).__name__}: {error}"
            self.write(name, {"failed": text[:1500], "wall_s": time.monotonic() - started})
            return None
        shown = said if isinstance(said, dict) else {"value": said}
        self.write(name, {**shown, "wall_s": round(time.monotonic() - started, 2)})
        return said


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in what runs too long."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Bench:
    """One device and what was built on it."""

    def __init__(self, device: str, preset: str) -> None:
        self.device, self.cuda = device, device == "cuda"
        self.name, self.config = preset, PRESETS[preset]
        self.peak = float("nan")  #: operations per second
        self.backends: list[Any] = []  #: of attention, the quickest first
        self.dice = torch.Generator(device).manual_seed(0)

    def sync(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], times: int) -> list[float]:
        """Return how long each of some calls took."""
        took = []
        for _ in range(times):
            self.sync()
            started = time.perf_counter()
            work()
            self.sync()
            took.append(time.perf_counter() - started)
        return took

    def describe(self) -> dict[str, Any]:
        """Say what this is."""
        said: dict[str, Any] = {"torch": torch.__version__, "device": self.device}
        if self.cuda:
            facts = torch.cuda.get_device_properties(0)
            said |= {"card": facts.name, "bytes": facts.total_memory, "cuda": torch.version.cuda}
        return said

    def agreement(self) -> dict[str, float]:
        """Compare loss and gradient of `tiny` in float32 with those of a CPU."""
        case = Case(2, 48, 32)
        found = []
        for device in ("cpu", self.device):
            model = build(PRESETS["tiny"], 0).to(device)
            prompts, answers = tokens(PRESETS["tiny"], case, torch.Generator().manual_seed(1))
            value = loss(model, prompts.to(device), answers.to(device))
            value.backward()  # type: ignore[no-untyped-call]
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            norm = torch.stack([one.norm() for one in gradients]).norm()
            found.append((float(value.detach()), float(norm)))
        (loss_cpu, norm_cpu), (loss_there, norm_there) = found
        assert abs(loss_there - loss_cpu) < 1e-3 * loss_cpu, found
        assert abs(norm_there - norm_cpu) < 1e-2 * norm_cpu, found
        return {"loss_cpu": loss_cpu, "loss": loss_there, "norm_cpu": norm_cpu, "norm": norm_there}

    def find_peak(self) -> dict[str, float]:
        """Measure products of bfloat16, among them those of the model; keep the best."""
        d, ff = (4096, 10752) if self.cuda else (256, 704)
        side = 8192 if self.cuda else 512
        said = {}
        for rows, inner, columns in ((side, side, side), (2 * side, d, ff), (2 * side, ff, d)):
            one, other = self.normal(rows, inner), self.normal(inner, columns)
            out = one @ other
            self.sync()
            took: list[float] = []
            ends = time.monotonic() + (PEAK_S if self.cuda else 0.1)
            while time.monotonic() < ends:
                took += self.seconds(lambda a=one, b=other, o=out: torch.mm(a, b, out=o), 5)  # type: ignore[misc]
            said[f"{rows}x{inner}x{columns}"] = (
                2.0 * rows * inner * columns / statistics.median(took)
            )
        self.peak = max(said.values())
        return {**said, "peak": self.peak}

    def normal(self, *shape: int) -> Tensor:
        """Return random numbers."""
        return torch.randn(*shape, device=self.device, generator=self.dice).bfloat16()

    def attention(self) -> dict[str, Any]:
        """Time the kernels of causal and of full attention; remember which is the quickest."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        config, length = self.config, 4096 if self.cuda else 32
        wide, narrow = (1, config.heads, length), (1, config.kv_heads, length)
        query = self.normal(*wide, config.head_dim).requires_grad_()
        key, value = (self.normal(*narrow, config.head_dim).requires_grad_() for _ in range(2))
        said: dict[str, Any] = {}
        known = {
            "cudnn": SDPBackend.CUDNN_ATTENTION,
            "flash": SDPBackend.FLASH_ATTENTION,
            "math": SDPBackend.MATH,
        }
        for name, backend in known.items():
            if name == "math" and self.cuda:
                continue

            def work(backend: Any = backend, causal: bool = False) -> None:
                with sdpa_kernel([backend]):
                    out = functional.scaled_dot_product_attention(
                        query, key, value, is_causal=causal, enable_gqa=True
                    )
                out.backward(out.detach())  # type: ignore[no-untyped-call]

            try:
                self.seconds(work, 2)
                full = statistics.median(self.seconds(work, 5))
                causal = statistics.median(self.seconds(lambda w=work: w(causal=True), 6))  # type: ignore[misc]
            except RuntimeError as error:
                said[name] = {"failed": str(error)[:300]}
                continue
            work_done = 3 * 4 * length**2 * config.heads * config.head_dim
            said[name] = {"full_s": full, "causal_s": causal, "full_flops": work_done / full}
        worked = sorted((one["full_s"], name) for name, one in said.items() if "full_s" in one)
        self.backends = [known[name] for _, name in worked]
        return {**said, "order": [name for _, name in worked]}

    def fit(self, case: Case) -> dict[str, Any]:
        """Take away layers until state and activations of a micro-batch fit."""
        layers = self.config.encoder_layers
        if self.cuda:
            room = SPARE * torch.cuda.get_device_properties(0).total_memory
            while layers > 1 and needed(cut(PRESETS[self.name], layers), case) > room:
                layers -= 1
        self.config = cut(PRESETS[self.name], layers)
        return {
            "preset": self.name,
            "layers": f"{layers} + {layers} of {PRESETS[self.name].encoder_layers}",
            "parameters": count_parameters(self.config).total,
            "state_bytes": state_bytes(self.config),
            "bytes_expected": needed(self.config, case),
        }

    def build(self) -> tuple[EncoderDecoder, MasterOptimizer]:
        """Make the model in bfloat16 on the device, and its optimizer."""
        with torch.device("meta"):
            model = EncoderDecoder(self.config).bfloat16()
        model.to_empty(device=self.device)
        if self.config.tied:
            model.head.weight = model.embedding.weight
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 1:
                    parameter.fill_(1.0)
                else:
                    spread = deviation(name, parameter.shape, self.config)
                    parameter.normal_(0.0, spread, generator=self.dice)
        return model, MasterOptimizer(model.named_parameters())


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

        def step() -> Tensor:
            for _ in range(ACCUMULATE):
                last = work()
            self.update()
            return last

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
            on_kernel = str(getattr(one, "device_type", "")).endswith("CUDA")
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


def cut(config: ModelConfig, layers: int) -> ModelConfig:
    """Return a model of the same widths with so many layers in each stack."""
    return replace(config, encoder_layers=layers, decoder_layers=layers)


def state_bytes(config: ModelConfig) -> int:
    """Return bytes of weights and gradients (2 each), copies (4) and moments (4 or 8)."""
    count = count_parameters(config)
    return 8 * count.total + 4 * count.hidden + 8 * (count.total - count.hidden)


def needed(config: ModelConfig, case: Case) -> float:
    """Return bytes of state, activations and logits."""
    per_layer = BYTES_PER_POSITION * config.d_model
    kept = case.positions * (config.encoder_layers + config.decoder_layers) / 2 * per_layer
    return state_bytes(config) + kept + 10 * case.batch * case.decoder * config.vocabulary


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything that time allows."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_model")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", choices=list(PRESETS), default="edge-7b")
    parser.add_argument("--limit-s", type=float, default=150.0, help="then the process ends")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args(arguments)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    torch._dynamo.config.recompile_limit = 64  # one for each micro-batch and kind of block
    report = Report(given.out, given.limit_s)
    bench = Bench(given.device, given.preset)
    cases = ON_GPU if bench.cuda else ON_CPU
    report.part("device", bench.describe, 30)
    report.part("peak", bench.find_peak, 20)
    report.part("attention", bench.attention, 20)
    report.part("fit", lambda: bench.fit(min(cases, key=lambda case: case.positions)), 5)
    training: Training | None = None

    def start() -> dict[str, Any]:
        nonlocal training
        training = Training(bench, given.compile)
        bench.sync()
        return {"built": True}

    report.part("build", start, 40)
    if training is not None:
        _train(report, training, cases)
    report.part("agreement", bench.agreement, 20)
    report.close()


def _train(report: Report, training: Training, cases: Sequence[Case]) -> None:
    """Measure the micro-batches; what matters most comes before the rest of them."""

    def measure(case: Case, *, suffix: str = "") -> None:
        name = f"{case.batch} x ({case.encoder} + {case.decoder}){suffix}"
        name += " recomputed" * case.recompute + " eager" * (not case.compiled)
        report.part(name, lambda: training.measure(case), 60)

    first, *rest = cases
    measure(first)
    if training.case is None and len(training.bench.backends) > 1:
        del training.bench.backends[0]  # the quickest kernel of attention may be what failed
        torch.compiler.reset()
        measure(first, suffix=" with the second kernel")
    if training.case is None:
        measure(rest.pop(0))
    report.part("profile", training.profile, 20)
    report.part("whole step", training.whole_step, 45)
    for case in rest:
        measure(case)


if __name__ == "__main__":
    main()
