"""The `slurm:` part of a cluster: which nodes of a Slurm cluster are ours, and how we hold them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from orchestrator.config.models import Strict
from orchestrator.config.scalars import Duration, Folder, duration
from orchestrator.config.ssh import NodePath, Words

WORD = r"[A-Za-z0-9_][A-Za-z0-9_.,@-]{0,62}"


def _word(value: str) -> str:
    if not re.fullmatch(WORD, value):
        raise ValueError(f"expected a plain word, got {value[:60]!r}")
    return value


Word = Annotated[str, AfterValidator(_word)]


class SlurmSettings(Strict):
    """How nodes are taken from Slurm: one job per node that holds it for our agents."""

    conf: Folder | None = Field(
        default=None, description="slurm.conf, if it is not where Slurm's commands look"
    )
    partition: Word | None = Field(default=None, description="partition of the holding jobs")
    account: Word | None = Field(default=None, description="account they are charged to")
    qos: Word | None = Field(default=None, description="quality of service of the holding jobs")
    time: Duration = Field(
        default=duration("7d"), description="duration of one holding job; it is renewed"
    )
    options: Words | None = Field(
        default=None, description="further words for sbatch, e.g. [--gres=gpu:8]"
    )
    folder: NodePath = Field(
        default="/var/tmp/holdfast",
        description="private folder on the nodes' own disks",
    )
    python: str = Field(
        default="python3", min_length=1, description="interpreter on the nodes, 3.10 or newer"
    )
    reboot: bool = Field(
        default=False, description="true: `scontrol reboot` works there (RebootProgram is set)"
    )
