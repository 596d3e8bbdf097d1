"""`make bench-model`: training speed of `tiny` beside Hugging Face's T5 of the same dimensions.

    python -m bench.model [-o json] [--rounds N] [--modes eager]

Both train on the same random tokens, forward, backward and update, one thread, tokens per second of
CPU time (a shared machine's wall clock says nothing). Rounds are interleaved and medians quoted; a
matrix product measured between them says how far from the peak each is. T5 has no rotary positions,
no QK-norm and full key-value heads: a few more parameters, fewer kernels.

T5's dimensions: gated feed-forward (v1.1), d_model 256, d_ff 704, 4 heads of 64, 4 + 4 layers,
vocabulary 4,096, tied embeddings. `transformers` is installed by the make target only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.accounting import Positions, count_parameters, training_flops
from model.config import PRESETS, TEXT
from model.transformer import Prompt, build

BATCH, ENCODER, DECODER = 32, 64, 32  #: samples; positions of prompt and answer
ROUNDS, STEPS = 7, 3  #: rounds of so many steps each
PEAK_SIDE = 768
MODES = ("eager", "compiled")
CONFIG = PRESETS["tiny"]


@dataclass(frozen=True)
class Contestant:
    """One way to train."""

    name: str
    step: Callable[[], None]
    flops: int  #: of one step, by our closed form


def main() -> None:
    """Measure every pair and print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.model")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the peer's, about its own deprecations
    rows = [
        compare(precision, mode, given.rounds)
        for precision in ("fp32", "bf16")
        for mode in given.modes
    ]
    if given.output == "json":
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['precision']} {row['mode']}: ours {row['ours']:,.0f}, T5 {row['peer']:,.0f} "
            f"tokens per CPU-second, ratio {row['ratio']:.2f}; ours at {row['of_peak']:.0%} of "
            f"the measured {row['peak_gflops']:,.0f} GFLOP/s"
        )


def compare(precision: str, mode: str, rounds: int) -> dict[str, Any]:
    """Return the figures of one precision, eager or compiled."""
    ours, peer = our_step(precision, mode), peer_step(precision, mode)
    for one in (ours, peer):
        for _ in range(3):  # warm, and compile
            one.step()
    times: dict[str, list[float]] = {"ours": [], "peer": [], "peak": []}
    for _ in range(rounds):
        times["peak"].append(cpu_seconds(product(precision)) / (2.0 * PEAK_SIDE**3))
        times["ours"].append(cpu_seconds(ours.step, STEPS))
        times["peer"].append(cpu_seconds(peer.step, STEPS))
    tokens = BATCH * (ENCODER + DECODER)
    peak = 1.0 / min(times["peak"])
    mine = statistics.median(times["ours"])
    pairs = zip(times["ours"], times["peer"], strict=True)
    return {
        "precision": precision,
        "mode": mode,
        "ours": tokens / mine,
        "peer": tokens / statistics.median(times["peer"]),
        "ratio": statistics.median(other / own for own, other in pairs),
        "of_peak": ours.flops / mine / peak,
        "peak_gflops": peak / 1e9,
    }


def cpu_seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the CPU time of one call."""
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def product(precision: str) -> Callable[[], object]:
    """Return a matrix product to compare with."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one = torch.randn(PEAK_SIDE, PEAK_SIDE).to(dtype)
    return lambda: one @ one


def data() -> tuple[Tensor, Tensor]:
    """Return random prompts and answers."""
    dice = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, CONFIG.vocabulary, (BATCH, ENCODER), generator=dice)
    answers = torch.randint(0, CONFIG.vocabulary, (BATCH, DECODER), generator=dice)
    return prompts, answers


def our_step(precision: str, mode: str) -> Contestant:
    """Return our training step: weights in the precision that is measured."""
    model = build(CONFIG, 0).to(dtype(precision))
    prompts, answers = data()
    prompt = Prompt(prompts, torch.full_like(prompts, TEXT))
    inputs = functional.pad(answers[:, :-1], (1, 0))
    forward: Callable[..., Tensor] = torch.compile(model) if mode == "compiled" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        logits = forward(prompt, inputs)
        loss = functional.cross_entropy(logits.flatten(0, 1), answers.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    flops = BATCH * training_flops(CONFIG, Positions(ENCODER, DECODER))
    return Contestant(f"tiny, {count_parameters(CONFIG).total:,} parameters", step, flops)


def peer_step(precision: str, mode: str) -> Contestant:
    """Return T5's training step."""
    import transformers

    config = transformers.T5Config(
        vocab_size=CONFIG.vocabulary,
        d_model=CONFIG.d_model,
        d_kv=CONFIG.head_dim,
        d_ff=CONFIG.d_ff,
        num_layers=CONFIG.encoder_layers,
        num_decoder_layers=CONFIG.decoder_layers,
        num_heads=CONFIG.heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-silu",
        tie_word_embeddings=True,
        decoder_start_token_id=0,
        pad_token_id=0,
        use_cache=False,
    )
    model = transformers.T5ForConditionalGeneration(config).to(dtype(precision))
    prompts, answers = data()
    inputs = functional.pad(answers[:, :-1], (1, 0))
    forward: Any = torch.compile(model) if mode == "compiled" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        logits = forward(input_ids=prompts, decoder_input_ids=inputs).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), answers.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return Contestant("T5", step, 0)


def dtype(precision: str) -> torch.dtype:
    """Return torch's name of a precision."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


if __name__ == "__main__":
    main()
