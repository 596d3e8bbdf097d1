"""`holdfast chaos`: break something of a local fleet on purpose, and see it heal."""

from __future__ import annotations

import random
from dataclasses import asdict
from datetime import UTC, datetime

import click

from orchestrator.chaos import Chaos, Fault
from orchestrator.cli.output import output_option, show_one
from orchestrator.cli.session import Session
from orchestrator.errors import UserError

HELP = {
    Fault.KILL_RANK: "Kill one rank with SIGKILL.",
    Fault.KILL_NODE: "Take the power of one node: its agent and all its processes die.",
    Fault.HANG_RANK: "Stop one rank with SIGSTOP.",
    Fault.GPU_FAULT: "Let the kernel log of one node say XID 79 (GPU fallen off the bus).",
    Fault.CORRUPT_CHECKPOINT: "Flip a bit of the newest checkpoint, then kill a rank.",
    Fault.LOSE_CLUSTER: "Take the power of a whole cluster, for good.",
    Fault.KILL_CONTROLLER: "Kill the daemon with SIGKILL.",
}


@click.group()
def chaos() -> None:
    """Break something of a local fleet on purpose. Nobody is told: see who notices."""


def _only_job(session: Session) -> str:
    """Return the one job that runs; raises `UserError` if it is not one."""
    from orchestrator.core.jobs import JobState

    jobs = session.fleet().jobs.values()
    running = sorted(str(job.name) for job in jobs if job.state is JobState.RUNNING)
    if len(running) == 1:
        return running[0]
    found = f"several jobs run ({', '.join(running)})" if running else "no job runs"
    raise UserError(f"{found}: give --job NAME")


def _command(fault: Fault) -> click.Command:
    def inject(
        session: Session, job: str | None, target: str | None, seed: int | None, output: str
    ) -> None:
        whose = "" if fault is Fault.KILL_CONTROLLER else job or _only_job(session)
        broken = Chaos(session.settings.state, random.Random(seed)).inject(fault, whose, target)
        show_one({**asdict(broken), "at": datetime.fromtimestamp(broken.at, UTC)}, output)

    decorated = click.pass_obj(inject)
    for option in (
        click.option("--job", help="Whose ranks; default: the only job that runs."),
        click.option("--target", help="A rank's number, a node or a cluster; default: by dice."),
        click.option("--seed", type=int, help="Of the dice."),
        output_option,
    ):
        decorated = option(decorated)
    return click.command(fault.value, help=HELP[fault])(decorated)


for _fault in Fault:
    chaos.add_command(_command(_fault))
