"""The training program: `python -m model.train`, alone, under torchrun or under Holdfast.

Everything about clusters, checkpoints and restarts is behind `training.join()`; what is left here
is what any training script has: resume, step, report, save.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from model.settings import Settings, parse
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from model.trainer import Trainer
    from orchestrator.runtime.training import Run


SAY_EVERY = 20  #: steps between lines on standard error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status, 2 for a mistake on the command line."""
    try:
        train(parse(arguments))
    except UserError as error:
        print(f"model.train: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def train(settings: Settings) -> None:
    """Train to the last step, from the newest checkpoint if there is one."""
    import torch  # after the command line is known to be right

    from model.trainer import Place, Trainer
    from orchestrator.runtime import training

    torch.set_num_threads(1)  # one rank, one core; and sums in one order
    run = training.join(settings.checkpoints)
    with run.phase("init"):
        if run.world_size > 1:
            torch.distributed.init_process_group("gloo")
        trainer = Trainer(settings, Place(run.rank, run.world_size))
        loaded = run.resume()
        if loaded is not None:
            trainer.load(loaded.state)
            run.attest(step=trainer.step, **trainer.attestation())
    _steps(run, trainer)
    _finish(run, trainer)
    run.close()
    if run.world_size > 1:
        torch.distributed.destroy_process_group()


def _steps(run: Run, trainer: Trainer) -> None:
    settings = trainer.settings
    while trainer.step < settings.steps:
        started = time.monotonic()
        totals = trainer.advance()
        speed = totals.positions / (time.monotonic() - started)
        run.heartbeat(trainer.step, loss=totals.loss, tokens_per_second=speed)
        last = trainer.step == settings.steps
        if run.rank == 0 and (last or trainer.step % SAY_EVERY == 0):
            said = f"step {trainer.step}/{settings.steps}  loss {totals.loss:.3f}"
            print(f"{said}  {speed:,.0f} tokens/s", file=sys.stderr, flush=True)
        if last or trainer.step % settings.checkpoint_every == 0:
            run.save(trainer.step, trainer.state(), **trainer.attestation())


def _finish(run: Run, trainer: Trainer) -> None:
    """Say how the run ended, on rank 0: one line of JSON."""
    if run.rank != 0:
        return
    said: dict[str, float | int] = {"step": trainer.step, "loss": trainer.loss}
    said["tokens"] = trainer.tokens
    if trainer.settings.evaluate:
        from model.evaluate import evaluate

        asked, dice = trainer.settings.evaluate, trainer.settings.data_seed
        with run.phase("evaluate"):
            said.update(asdict(evaluate(trainer.model, trainer.items, asked, dice)))
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    sys.exit(main())
