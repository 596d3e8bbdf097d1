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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.settings import Settings, parse
from orchestrator.errors import PermanentError, UserError

if TYPE_CHECKING:
    import torch

    from model.gradients import Totals
    from model.rollback import Rescue
    from model.sharded import ShardedTrainer
    from model.trainer import Trainer
    from orchestrator.runtime.training import Run

    AnyTrainer = Trainer | ShardedTrainer


SAY_EVERY = 20  #: steps between lines on standard error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status, 2 for a mistake on the command line."""
    try:
        train(parse(arguments))
    except (UserError, PermanentError) as error:
        print(f"model.train: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def train(settings: Settings) -> None:
    """Train to the last step, from the newest checkpoint if there is one."""
    import torch  # after the command line is known to be right

    from model.device import BACKENDS, choose
    from model.rollback import Rescue
    from orchestrator.runtime import training

    torch.set_num_threads(1)  # one rank, one core; and sums in one order
    run = training.join(settings.checkpoints)
    with run.phase("init"):
        device = choose(settings.device, run.local_rank)
        if run.world_size > 1 or settings.spread is not None:
            _join_gang(run, BACKENDS[device.type])
        trainer = _trainer(settings, run, device)
        trainer.resume(run)
    rescue = Rescue(run, trainer)
    try:
        run_steps(run, trainer, rescue)
    finally:
        trainer.loader.close()
    _finish(run, trainer, rescue)
    run.close()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _join_gang(run: Run, backend: str) -> None:
    import torch

    if run.world_size > 1:
        torch.distributed.init_process_group(backend)
    else:  # nobody set the environment of a rendezvous
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)


def _trainer(settings: Settings, run: Run, device: torch.device) -> AnyTrainer:
    if settings.spread is not None:
        from model.parallel import Degrees
        from model.sharded import ShardedTrainer

        return ShardedTrainer(settings, Degrees(*settings.spread), device)
    from model.trainer import Place, Trainer

    return Trainer(settings, Place(run.rank, run.world_size), device)


def run_steps(run: Run, trainer: AnyTrainer, rescue: Rescue) -> None:
    """Train from where the trainer stands to the last step, rolling back what is spoiled."""
    from model.damage import Told

    settings = trainer.settings
    profile = _profiler(settings)
    peak = _peak(trainer)
    damaged = Told(trainer.loader)
    while trainer.step < settings.steps:
        started, waited = time.monotonic(), trainer.loader.waited_s
        if settings.curriculum.at(trainer.step + 1).step == 1:
            _begin_stage(run, trainer)
        with profile():
            totals = trainer.advance()
        damaged.tell()
        took = time.monotonic() - started
        wait = (trainer.loader.waited_s - waited) / took
        speed = totals.positions / took
        others = trainer.waited_s
        own = None if others is None else max(0.0, took * (1 - wait) - others)
        run.heartbeat(
            trainer.step, loss=totals.loss, tokens_per_second=speed, data_wait=wait, own=own
        )
        if settings.guard:
            spoiled = trainer.sentinel.judge(totals.loss, totals.norm, totals.weights)
            if spoiled is not None:
                rescue.back(spoiled)
                continue
        if run.rank == 0:
            _say(trainer, totals, took, wait, peak)
            _note_loss(trainer)
        ends = settings.curriculum.ends_stage(trainer.step)
        if ends or trainer.step % settings.checkpoint_every == 0:
            trainer.save(run)


def _begin_stage(run: Run, trainer: AnyTrainer) -> None:
    """Tell the change; another stage has other losses."""
    curriculum = trainer.settings.curriculum
    trainer.sentinel.forget()
    if run.rank == 0 and len(curriculum.stages) > 1:
        moment = curriculum.at(trainer.step + 1)
        stage = curriculum.stages[moment.stage]
        said = f"stage {moment.stage + 1}/{len(curriculum.stages)} {stage.name}"
        print(f"{said} begins after step {trainer.step}", file=sys.stderr, flush=True)


def _say(trainer: AnyTrainer, totals: Totals, took: float, wait: float, peak: float | None) -> None:
    steps = trainer.settings.steps
    if trainer.step != steps and trainer.step % SAY_EVERY:
        return
    said = f"step {trainer.step}/{steps}  loss {totals.loss:.3f}"
    said += f"  {totals.positions / took:,.0f} tokens/s  data wait {wait:.0%}"
    if peak is not None:
        said += f"  MFU {trainer.flops / took / peak:.1%} of {peak / 1e9:,.0f} GFLOP/s measured"
    print(said, file=sys.stderr, flush=True)


def _note_loss(trainer: AnyTrainer) -> None:
    """Append a line to the file of losses; a run that resumed appends to that of the first."""
    if trainer.settings.losses is None:
        return
    line = {"step": trainer.step, "loss": trainer.loss, "cpu_s": round(time.process_time(), 1)}
    try:
        with Path(trainer.settings.losses).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise UserError(f"--losses {trainer.settings.losses}: {error.strerror}") from error


def _peak(trainer: AnyTrainer) -> float | None:
    if not trainer.settings.mfu:
        return None
    from model.throughput import peak_flops

    return peak_flops(trainer.settings.precision, trainer.device)


def _profiler(settings: Settings) -> Any:
    from contextlib import nullcontext

    if settings.profile_to is None:
        return nullcontext
    from model.profiling import OnDemand

    return OnDemand(settings.profile_to)


def _finish(run: Run, trainer: AnyTrainer, rescue: Rescue) -> None:
    """Say how the run ended, on rank 0: one line of JSON."""
    from model.damage import of_gang

    tally = of_gang(run, trainer.loader)
    if run.rank != 0:
        return
    said: dict[str, Any] = {"step": trainer.step, "loss": trainer.loss, "tokens": trainer.tokens}
    if len(tally.positions) > 1:
        said["positions"] = dict(tally.positions)
    if tally.counts:
        said["damaged"] = {"counts": dict(tally.counts), "named": tally.named}
    if rescue.audit:
        said["rollbacks"] = [asdict(one) for one in rescue.audit]
    if trainer.settings.evaluate:
        from model.evaluate import evaluate

        with run.phase("evaluate"):
            said.update(evaluate(trainer.model, trainer.settings))
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    sys.exit(main())
