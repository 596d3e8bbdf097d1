"""What changed between two beliefs is told once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.core.assess import assess
from orchestrator.core.beliefs import Beliefs
from orchestrator.core.cohorts import CohortBelief
from orchestrator.core.news import news
from orchestrator.core.nodes import ClusterName, CohortName, ProviderName
from orchestrator.core.observations import (
    AgentGone,
    AgentSilent,
    InventorySeen,
    MachineSeen,
    NodeReached,
    NodeUnreached,
    Observation,
    Power,
    Probed,
    ProviderFailed,
)
from orchestrator.core.phases import Phases
from orchestrator.core.verdicts import Severity
from tests.core.test_assess import JOB, N1, A, at, finding
from tests.core.world import BEGIN, World


def told(before: Beliefs, *seen: Observation) -> tuple[Beliefs, list[tuple[str, str]]]:
    after = assess(before, seen, BEGIN + at(20))
    return after, [(one.kind, one.text) for one in news(before, after)]


def test_what_befalls_a_node_is_told_in_its_order() -> None:
    world = World({"a": 1}).run(1)
    seen = world.fleet.beliefs.nodes[next(iter(world.fleet.nodes))].seen
    assert seen is not None
    off = MachineSeen(N1, "c", seen.machine, Power.STOPPED)
    broken = finding(Severity.CRITICAL, 1, "b1")
    held, first = told(
        Beliefs(),
        Probed(N1, BEGIN + at(1), "b1", (broken,), complete=True),
        AgentSilent(N1, JOB, 1, BEGIN + at(2), "refused"),
        NodeUnreached(N1, BEGIN + at(3), "no route"),
        AgentGone(N1, JOB, 1, BEGIN + at(4), "guard"),
        InventorySeen(A, "sim", BEGIN + at(5), (off,)),
        ProviderFailed(ClusterName("b"), BEGIN + at(6), "503"),
    )
    assert [kind for kind, _ in first] == [
        "finding",
        "agent-silent",
        "node-unreached",
        "agent-gone",
        "node-lost",
        "provider-failed",
    ]
    held, second = told(held, NodeReached(N1, BEGIN + at(7), "b2"))
    assert second == [("node-back", "a-1 can be reached again")]
    assert told(held)[1] == []


def test_a_cohort_that_turns_chaotic_is_news_and_so_is_its_calm() -> None:
    at = BEGIN - timedelta(weeks=1)
    names = (ClusterName("a"), CohortName("first"), ProviderName("p"))
    calm = CohortBelief(*names, Phases.begin(at, 100.0), at)
    wild = replace(calm, phases=replace(calm.phases, chaotic_since=at))
    before, after = Beliefs(cohorts={calm.key: calm}), Beliefs(cohorts={wild.key: wild})
    (new,) = news(before, after)
    assert (new.kind, new.subjects) == ("cohort-chaotic", ("a/first", "a"))
    assert "a/first is called chaotic: P(chaotic) 0.60" in new.text
    assert [one.kind for one in news(after, before)] == ["cohort-stable"]
    assert news(after, after) == ()
