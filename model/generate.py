"""`python -m model generate`: ask a checkpoint about text, pictures, videos and sounds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import PRESETS
from model.settings import DEVICES
from orchestrator.errors import PermanentError, UserError

PROMPT_MAX = 4_096


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds of a model."""

    tensors: dict[str, Any]
    step: int
    commit: int


def main(arguments: Sequence[str]) -> int:
    """Load, ask, print the answer (with `-o json`: one object)."""
    given = _parser().parse_args(arguments)
    _refuse_nonsense(given)
    import torch

    from model import agent, decoding, device, tokenizer
    from model.data.samples import Form
    from model.transformer import EncoderDecoder

    torch.set_num_threads(given.threads)
    config = PRESETS[given.preset]
    ranks = tokenizer.load()
    if given.tokenizer is not None:
        ranks = tokenizer.from_file(given.tokenizer, config.vocabulary)
    if ranks.vocabulary != config.vocabulary:
        raise UserError(f"--preset {given.preset} needs a --tokenizer of its own")
    weights = read_checkpoint(given.checkpoint, given.commit)
    model = EncoderDecoder(config).to(device.choose(given.device))
    fill(model, weights.tensors, given.preset)
    form = Form(config, ranks, PROMPT_MAX, given.tokens_max)
    sampling = decoding.Sampling(given.temperature, given.top_p, given.seed)
    session = agent.Session(model, form, sampling, agent.tools_of(given.tool, given.documents))
    told = session.ask(given.prompt, given.files or [])
    if given.output == "json":
        print(json.dumps({**told, "step": weights.step, "commit": weights.commit}))
    else:
        print(told["answer"])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model generate",
        description="Ask a checkpoint. Media stand where <image>, <video>, <audio> are, or first.",
        allow_abbrev=False,
    )
    flag = parser.add_argument
    flag("prompt", nargs="?", default="en", help="text (default: %(default)s, for the captions)")
    flag("--checkpoint", metavar="URL", required=True, help="a vault, as given to training")
    flag("--commit", type=int, metavar="SEQ", help="which commit; the newest that verifies")
    flag("--preset", choices=list(PRESETS), default="tiny", help="the model's size")
    flag("--tokenizer", type=Path, metavar="FILE", help="tiktoken rank file of the training")
    for kind in ("image", "video", "audio"):
        flag(f"--{kind}", dest="files", metavar="FILE", action=_File, help=f"{kind}, repeatable")
    flag("--tokens-max", type=int, default=48, help="of the answer (default: %(default)s)")
    flag("--temperature", type=float, default=0.0, help="0: greedy (default)")
    flag("--top-p", type=float, default=1.0, help="nucleus of this probability")
    flag("--seed", type=int, default=0, help="of the sampling")
    flag("--tool", action="append", choices=("search", "python"), default=[], help="may be called")
    flag("--documents", type=Path, metavar="FOLDER", help="what --tool search looks through")
    flag("--device", choices=DEVICES, default="auto", help="auto: the first GPU, else the CPU")
    flag("--threads", type=int, default=1)
    flag("-o", "--output", choices=("text", "json"), default="text")
    return parser


def _refuse_nonsense(given: argparse.Namespace) -> None:
    """Raise UserError for numbers that no answer can be made with."""
    for name in ("tokens_max", "threads"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if not 0.0 <= given.temperature < float("inf"):
        raise UserError("--temperature must be 0 (greedy) or above")
    if not 0.0 < given.top_p <= 1.0:
        raise UserError("--top-p must lie between 0 and 1")
    if given.seed < 0:
        raise UserError("--seed must not be negative")


class _File(argparse.Action):
    """Collects media of all kinds in the order of the command line."""

    def __call__(self, _parser: Any, space: argparse.Namespace, value: Any, flag: Any = "") -> None:
        from model.inputs import Asked

        files = [*(getattr(space, self.dest) or []), Asked(f"<{flag[2:]}>", Path(value))]
        setattr(space, self.dest, files)


def read_checkpoint(url: str, seq: int | None) -> Weights:
    """Return the weights of a commit, replicated or sharded, every part verified.

    Raises UserError if there is no such commit, PermanentError if none verifies.
    """
    from orchestrator.runtime.vault import VerificationError, open_vault

    if "://" not in url and not Path(url).is_dir():
        raise UserError(f"--checkpoint {url}: there is no such folder")
    vault = open_vault(url)
    lineage = vault.register.read()
    commit = lineage.head if seq is None else lineage.commit(seq)
    if commit is None:
        raise UserError(f"--checkpoint {url}: no commit{'' if seq is None else f' {seq}'} in it")
    while commit is not None:
        try:
            return _read(vault.open(commit))
        except VerificationError as error:
            print(f"model generate: {error}", file=sys.stderr)
            commit = lineage.commit(commit.parent) if seq is None else None
    raise PermanentError(f"--checkpoint {url}: no commit verifies")


def _read(checkpoint: Any) -> Weights:
    import io

    import torch

    from orchestrator.runtime import dcp

    manifest, seq = checkpoint.manifest, checkpoint.commit.seq
    part = manifest.part("model")
    if part is None:
        return Weights(dcp.full_tensors(checkpoint, "model"), manifest.step, seq)
    data = io.BytesIO(checkpoint.read(part))
    tensors = torch.load(data, map_location="cpu", weights_only=True)
    return Weights(tensors, manifest.step, seq)


def fill(model: Any, tensors: dict[str, Any], preset: str) -> None:
    """Copy weights into a model. Raises UserError if they are those of another."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            found = tensors.get(name)
            if found is None or found.shape != parameter.shape:
                what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
                raise UserError(f"the checkpoint is not of --preset {preset}: {name} {what}")
            parameter.copy_(found)
