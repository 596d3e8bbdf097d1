"""The links of a delivered cohort over each rail: what nodes are asked, and what it names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from healthchecks.active.pairs import parse
from orchestrator.core.acceptance import Plan
from orchestrator.core.localise import Outcome
from orchestrator.core.rails import Rail
from orchestrator.engines.site import Site
from orchestrator.observers.examine import Examination, Wish
from providers.api import Completed, Run
from tests.daemon.house import DreamEngine, DreamProvider, dream_site

NODES = [f"ash-{number}" for number in range(8)]
RAILS = tuple(Rail(f"mlx5_{number}", number) for number in range(4))


@dataclass
class Fabric:
    """Nodes whose cards work, but for some."""

    bad: frozenset[tuple[str, str]]  #: (node, card)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def site(self) -> Site:
        site = dream_site(DreamProvider(NODES), DreamEngine())
        return replace(site, run=self.node, checks=lambda node: ("checks",))

    def node(self, name: str) -> Run:
        def run(argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
            del stdin, limit
            request = json.loads(argv[-1])
            parse(argv[-1])  # what is sent is what nodes can read
            self.asked.append({**request, "node": name})
            slow = (name, request.get("rail")) in self.bad
            rate = 2.0 if slow else 20.0
            return Completed(0, json.dumps({"id": 1, "gbps": rate}).encode(), b"")

        return run

    def examine(self, rails: tuple[Rail, ...]) -> Any:
        plan = Plan(frozenset(), accelerators=8)
        made = Examination(self.site(), plan, Wish(rails=rails), say=lambda _: None)
        made.runs = {node: {} for node in NODES}
        links, why = made._links(NODES, made.clock() + 1000)
        assert why == ""
        return links


def test_each_rail_is_tested_by_itself_and_the_bad_card_is_named() -> None:
    fabric = Fabric(frozenset({("ash-3", "mlx5_2")}))
    links = fabric.examine(RAILS)
    assert (links.outcome, links.nodes) == (Outcome.FOUND, frozenset({"ash-3"}))
    assert dict(links.rails) == {"ash-3": ("mlx5_2",)}
    assert {(one["rail"], one["gpu"]) for one in fabric.asked} == {
        (one.name, one.gpu) for one in RAILS
    }


def test_without_rails_one_is_tested_and_another_one_s_fault_is_not_seen() -> None:
    fabric = Fabric(frozenset({("ash-3", "mlx5_2")}))
    assert fabric.examine(()).outcome is Outcome.NOTHING
    assert {(one.get("rail"), one["gpu"]) for one in fabric.asked} == {(None, 0)}


@pytest.mark.parametrize("node", [NODES[0], NODES[7]])
def test_a_node_that_is_slow_on_all_rails_is_named_as_a_node(node: str) -> None:
    fabric = Fabric(frozenset((node, one.name) for one in RAILS))
    links = fabric.examine(RAILS)
    assert (links.outcome, links.nodes) == (Outcome.FOUND, frozenset({node}))
    assert not links.rails
