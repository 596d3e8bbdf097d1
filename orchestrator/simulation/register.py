"""A run's commit register in the simulated world: real records, judged by the real rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.core.nodes import JobName
from orchestrator.core.observations import RegisterSeen
from orchestrator.runtime.lineage import Lineage, Record
from orchestrator.simulation.agenda import moment

SHOWN = 16  #: newest generations in one answer


@dataclass(slots=True)
class SimRegister:
    """The register and what the vault behind it holds."""

    job: JobName
    lineage: Lineage = field(default_factory=Lineage)
    records: list[Record] = field(default_factory=list)
    work: dict[int, float] = field(default_factory=dict)  #: seq of a commit -> work in it
    damaged: set[int] = field(default_factory=set)  #: commits that do not verify
    down: int = 0  #: how many faults keep everybody from it

    def append(self, make: Callable[[int], Record]) -> Record:
        """Create the next record."""
        record = make(self.lineage.next_seq)
        self.records.append(record)
        self.lineage = self.lineage.then(record)
        return record

    def seen(self, now: float) -> RegisterSeen:
        """Return what a reader sees."""
        lineage = self.lineage
        fence = lineage.fence
        mine = [one for one in lineage.generations[-SHOWN:] if fence and one.under == fence.seq]
        return RegisterSeen(
            self.job,
            moment(now),
            fence,
            tuple(mine),
            lineage.head,
            len(lineage.commits),
            len(lineage.void),
        )
