"""What each preset costs: `python -m model describe`."""

from __future__ import annotations

import json
from typing import Any

from model import accounting
from model.config import PRESETS, ModelConfig


def describe() -> dict[str, Any]:
    """Return the figures of every preset, from the closed forms."""
    return {"presets": {name: _one(config) for name, config in PRESETS.items()}}


def _one(config: ModelConfig) -> dict[str, Any]:
    count = accounting.count_parameters(config)
    encoder, decoder = accounting.REFERENCE
    return {
        "parameters": count.total,
        "encoder_parameters": count.encoder,
        "decoder_parameters": count.decoder,
        "stem_parameters": count.stems,
        "embedding_parameters": count.embeddings,
        "flops_per_token": accounting.flops_per_token(config),
        "flops_at": {"encoder_positions": encoder, "decoder_positions": decoder},
        "checkpoint_bytes": accounting.checkpoint_bytes(config),
        "vocabulary": config.vocabulary,
        "layers": [config.encoder_layers, config.decoder_layers],
        "d_model": config.d_model,
    }


def table() -> str:
    """Return the same for people."""
    lines = [f"{'PRESET':<10} {'PARAMETERS':>15} {'FLOP/TOKEN':>11} {'CHECKPOINT':>11}"]
    for name, one in describe()["presets"].items():
        size = one["checkpoint_bytes"] / 1e9
        flops = one["flops_per_token"]
        lines.append(f"{name:<10} {one['parameters']:>15,} {flops:>11.3g} {size:>8.2f} GB")
    return "\n".join(lines)


def as_json() -> str:
    """Return the figures as JSON."""
    return json.dumps(describe(), indent=2)
