"""Where a rank finds itself: the environment that Holdfast, torchrun or nobody gave it.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import UserError


@dataclass(frozen=True)
class Surroundings:
    """The facts of one rank's place, read once."""

    rank: int
    world_size: int
    local_rank: int
    in_holdfast: bool  #: started by an agent
    job: str | None
    attempt: int
    node: str
    generation_seq: int | None  #: seq of the generation's record; None: it may not commit
    resume: int | None  #: seq of the commit that every rank loads
    checkpoints: str | None
    register: str | None
    heartbeat: str | None
    generation: int = 0  #: number of the generation within the attempt
    memory_floor: int = 0  #: number of the oldest generation whose states in memory count
    resume_step: int | None = None  #: step of the commit that every rank loads
    collectives: str | None = None  #: folder for the records of collectives; None: none are kept
    replicas: tuple[str, ...] = ()  #: other stores that hold what is in `checkpoints`

    @property
    def writer(self) -> str:
        """Who writes, for people."""
        return f"{self.node}/rank{self.rank}"


def read(environ: Mapping[str, str], checkpoints: str | None = None) -> Surroundings:
    """Read the environment; `checkpoints` is used where Holdfast gave none.

    Raises `UserError` naming the variable that is not a number.
    """
    return Surroundings(
        rank=_number(environ, "RANK") or 0,
        world_size=_number(environ, "WORLD_SIZE") or 1,
        local_rank=_number(environ, "LOCAL_RANK") or 0,
        in_holdfast=bool(environ.get("HOLDFAST_RUN")),
        job=environ.get("HOLDFAST_JOB") or None,
        attempt=_number(environ, "HOLDFAST_ATTEMPT") or 0,
        node=environ.get("HOLDFAST_NODE") or socket.gethostname(),
        generation_seq=_number(environ, "HOLDFAST_GENERATION_SEQ"),
        resume=_number(environ, "HOLDFAST_RESUME"),
        checkpoints=environ.get("HOLDFAST_CHECKPOINTS") or checkpoints,
        register=environ.get("HOLDFAST_REGISTER") or None,
        heartbeat=environ.get("HOLDFAST_HEARTBEAT") or None,
        generation=_number(environ, "HOLDFAST_GENERATION") or 0,
        memory_floor=_number(environ, "HOLDFAST_MEMORY_FLOOR") or 0,
        resume_step=_number(environ, "HOLDFAST_RESUME_STEP"),
        collectives=environ.get("HOLDFAST_COLLECTIVES") or None,
        replicas=tuple(filter(None, environ.get("HOLDFAST_REPLICAS", "").split("\n"))),
    )


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    try:
        return int(text) if text else None
    except ValueError as error:
        raise UserError(f"environment variable {name}: not a number: {text!r}") from error
