"""`holdfast chaos`: break something of a local fleet on purpose, and see it heal."""

from __future__ import annotations

import random
from dataclasses import asdict

import click

from orchestrator.chaos import Chaos, Fault
from orchestrator.cli.output import output_option, show_one
from orchestrator.cli.session import Session

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


def _command(fault: Fault) -> click.Command:
    def inject(
        session: Session, job: str, target: str | None, seed: int | None, output: str
    ) -> None:
        broken = Chaos(session.settings.state, random.Random(seed)).inject(fault, job, target)
        show_one(asdict(broken), output)

    decorated = click.pass_obj(inject)
    for option in (
        click.option("--job", default="train", show_default=True, help="Whose ranks."),
        click.option("--target", help="A rank's number, a node or a cluster; default: by dice."),
        click.option("--seed", type=int, help="Of the dice."),
        output_option,
    ):
        decorated = option(decorated)
    return click.command(fault.value, help=HELP[fault])(decorated)


for _fault in Fault:
    chaos.add_command(_command(_fault))
