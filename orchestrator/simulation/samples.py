"""What the controller believes and wants, looked at once in a while: phases, rates, spares.

Only read: a sample changes nothing, and is taken with the very functions that decisions use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.core import outlook
from orchestrator.core.look import LIVE, Look
from orchestrator.core.nodes import ClusterName, CohortName
from orchestrator.simulation.agenda import DAY
from orchestrator.simulation.controller import Controller
from orchestrator.simulation.world import World

CHAOTIC = 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """What was held of one cohort at a moment."""

    at: float
    cohort: str
    p: float
    rate: float


@dataclass(eq=False)
class Samples:
    """Looks at the controller's mind every so often."""

    world: World
    controller: Controller
    every: float = DAY / 2
    cohorts: list[Sample] = field(default_factory=list)
    spares: dict[str, list[int]] = field(default_factory=dict)

    def begin(self) -> None:
        """Look now, and again and again."""
        self.world.agenda.after(self.every, self._look)

    def _look(self) -> None:
        if self.controller.alive:
            look = Look(self.controller.fleet, self.controller.policy)
            for attempt in look.attempts(LIVE):
                self.spares.setdefault(attempt.job, []).append(outlook.spares_wanted(look, attempt))
            for cluster in self.world.plan.clusters:
                for cohort in cluster.cohorts:
                    held = outlook.cohort_outlook(
                        look, ClusterName(cluster.name), CohortName(cohort.name)
                    )
                    name = f"{cluster.name}/{cohort.name}"
                    sample = Sample(self.world.now, name, held.p_chaotic, held.rate)
                    self.cohorts.append(sample)
        self.world.agenda.after(self.every, self._look)

    def mean_spares(self, job: str) -> float:
        """Return how many nodes beyond its gang the policy wanted for a job, in the mean."""
        wanted = self.spares.get(job, [])
        return round(sum(wanted) / len(wanted), 2) if wanted else 0.0

    def mean_phase(self) -> float | None:
        """Return P(chaotic) in the mean over all samples; None if no phase was believed in."""
        if not self.cohorts:
            return None
        return round(sum(one.p for one in self.cohorts) / len(self.cohorts), 4)

    def phases(self) -> list[dict[str, Any]]:
        """Return the phases of each cohort: from and to (seconds), label, mean P(chaotic)."""
        spans: list[dict[str, Any]] = []
        for cohort in sorted({one.cohort for one in self.cohorts}):
            spans += self._of(cohort)
        return spans

    def _of(self, cohort: str) -> list[dict[str, Any]]:
        mine = [one for one in self.cohorts if one.cohort == cohort]
        spans: list[dict[str, Any]] = []
        for one in mine:
            label = "chaotic" if one.p >= CHAOTIC else "stable"
            if spans and spans[-1]["phase"] == label:
                spans[-1]["ps"].append(one.p)
                spans[-1]["to"] = one.at
                continue
            began = spans[-1]["to"] if spans else 0.0
            spans.append(
                {"cohort": cohort, "phase": label, "from": began, "to": one.at, "ps": [one.p]}
            )
        for span in spans:
            ps = span.pop("ps")
            span["p"] = round(sum(ps) / len(ps), 4)
        return spans
