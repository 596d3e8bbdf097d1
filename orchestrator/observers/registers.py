"""What a run's commit register says: fences, generations and commits that count."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.nodes import JobName
from orchestrator.core.observations import RegisterSeen, RegisterSilent
from orchestrator.errors import HoldfastError
from orchestrator.runtime.lineage import Lineage
from orchestrator.runtime.register import Register


def read_register(register: Register, job: JobName, now: datetime) -> RegisterSeen | RegisterSilent:
    """Read what is new in a register; it keeps what it read before."""
    try:
        lineage = register.read()
    except HoldfastError as error:
        return RegisterSilent(job, now, str(error))
    return register_seen(lineage, job, now)


def register_seen(lineage: Lineage, job: JobName, now: datetime) -> RegisterSeen:
    """Say what of a lineage the core wants to know."""
    fence = lineage.fence
    return RegisterSeen(
        job=job,
        at=now,
        fence=fence,
        generations=tuple(
            one for one in lineage.generations if fence is not None and one.under == fence.seq
        ),
        commit=lineage.head,
        commits=len(lineage.commits),
        void=len(lineage.void),
    )
