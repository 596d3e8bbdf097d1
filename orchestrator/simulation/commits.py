"""The writing ranks: what became durable enters the register, as its writer believes."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.runtime.lineage import Commit, Generation, Record
from orchestrator.simulation.agenda import BEGIN
from orchestrator.simulation.plan import JobPlan
from orchestrator.simulation.register import SimRegister
from orchestrator.simulation.training import Saved

EPOCH = BEGIN.timestamp()


def record(
    register: SimRegister, generation: Generation, job: JobPlan, saved: Iterable[Saved]
) -> bool:
    """Append checkpoints under a generation, oldest first; say whether anything was written.

    The writer does not look whether its generation still rules: whether a commit counts is the
    readers' business, and a writer that was overtaken a moment ago could not know.
    """
    wrote = False
    for one in saved:
        head = register.lineage.head
        if head is not None and register.work.get(head.seq, 0.0) >= one.work:
            continue

        def make(seq: int, one: Saved = one) -> Record:
            parent = register.lineage.head
            return Commit(
                seq,
                f"c{seq}",
                generation.seq,
                int(one.work / job.step),
                None if parent is None else parent.seq,
                f"m{seq}",
                "d",
                EPOCH + one.at,
                generation.members[0].node,
            )

        register.work[register.append(make).seq] = one.work
        wrote = True
    return wrote
