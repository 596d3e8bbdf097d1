"""One device: its peak, its kernels, and what fits on it; see `gpu_model`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch._dynamo
from torch import Tensor
from torch.nn import functional

from bench.gpu_training import Case, loss, tokens
from model.accounting import count_parameters
from model.config import PRESETS, ModelConfig
from model.optimizer import MasterOptimizer
from model.transformer import EncoderDecoder, build, deviation

PEAK_S = 1.0  #: how long one shape of product is repeated: clocks fall under load
BYTES_PER_POSITION = 2.3e6 / (16 * 4096)  #: of activations, per layer and width: kept, compiled
SPARE = 0.93  #: of the memory, before it is called full


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
