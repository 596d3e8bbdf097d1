"""Ranks that are asked to leave their generation, at the level of one node's processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime import staging
from orchestrator.runtime.place import Place
from orchestrator.runtime.ranks import Ranks
from orchestrator.runtime.reports import RankState
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.vigil import PARK_MIN
from tests.runtime.test_warm import PLAN
from tests.runtime.trees import cleared, wait_for

pytestmark = pytest.mark.system

#: says that it survives, then does what its rank's word in argv says
SCRIPT = """
import os, sys, time
from orchestrator.runtime.rankline import Line
line = Line.from_environment()
rank = int(os.environ["RANK"])
what = sys.argv[1 + rank]
if what == "plain":
    time.sleep(300)
line.say({"say": "survivor"})
print("ready", flush=True)
order = line.order(None)
if order["do"] == "pace":
    print("saves every", order["save_seconds"], flush=True)
    order = line.order(None)
if what == "deaf":
    time.sleep(300)
if what == "asks":
    said, descriptors = line.ask({"say": "memory", "bytes": 1000})
    print(len(descriptors), said.get("refused"), flush=True)
line.say({"say": "parked", "generation": order["generation"]})
print("parked", flush=True)
order = line.order(None)
print("joined", order["env"]["HOLDFAST_GENERATION"], order["env"]["RANK"], flush=True)
time.sleep(300)
"""


class Node:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.ranks: Ranks | None = None

    def start(self, *words: str, **changes: Any) -> Ranks:
        (self.place.home / "script.py").write_text(SCRIPT)
        plain: dict[str, Any] = {
            "command": (sys.executable, "script.py", *words),
            "workdir": str(self.place.home),
            "ranks_per_node": 2,
            "stop_grace": 1.0,
        }
        self.ranks = Ranks(
            AgentSpec("n0", "job", 1, 1, "00" * 16, **{**plain, **changes}), self.place
        )
        self.ranks.start(PLAN)
        for rank, word in enumerate(words):
            if word != "plain":
                self.hears(rank, "ready")
        self.until(
            lambda ranks: [r.survives for r in ranks._ranks].count(True) == 2 - words.count("plain")
        )
        return self.ranks

    def until(self, what: Callable[[Ranks], object], limit: float = 20.0) -> None:
        ranks = self.ranks
        assert ranks is not None
        wait_for(lambda: (ranks.look(time.monotonic()), what(ranks))[1], limit=limit)

    def hears(self, rank: int, text: str, generation: int = 1) -> None:
        log = self.place.log(generation, rank)
        self.until(lambda _: log.exists() and text in log.read_text())

    def end(self, *, keep: bool) -> float:
        """End the generation; return how long it took until it was proven."""
        assert self.ranks is not None
        began = time.monotonic()
        self.ranks.end(began, "the test says so", keep=keep)
        self.until(lambda ranks: ranks.gone)
        return time.monotonic() - began

    @property
    def pids(self) -> list[int]:
        assert self.ranks is not None
        return [one.child.pid for one in self.ranks._ranks]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    place = Place(tmp_path, "job.1")
    place.make()
    staging.stage(place.site)
    node = Node(place)
    with cleared(tmp_path):
        yield node
        if node.ranks is not None:
            node.ranks.dismiss(time.monotonic(), "the test is over")
            node.ranks.end(time.monotonic(), "the test is over")
            node.until(lambda ranks: ranks.gone)
            node.ranks.close()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_who_leaves_stays_and_joins_the_next_generation_with_another_seat(node: Node) -> None:
    ranks = node.start("good", "good")
    pids = node.pids
    os.kill(pids[0], signal.SIGKILL)
    node.until(lambda ranks: ranks.trouble)
    node.end(keep=True)
    assert ranks.kept
    assert alive(pids[1])
    ranks.start(replace(PLAN, generation=2, group_rank=1, world_size=4))
    node.hears(1, "joined 2 3")  # local rank 1 of the second node
    assert node.pids[1] == pids[1]
    assert node.pids[0] != pids[0]


def test_who_cannot_leave_is_ended_at_once(node: Node) -> None:
    node.start("plain", "good")
    first, second = node.pids
    node.end(keep=True)
    assert not alive(first)
    assert alive(second)


def test_who_does_not_leave_in_time_is_ended_and_the_others_stay(node: Node) -> None:
    ranks = node.start("deaf", "good")
    deaf, good = node.pids
    took = node.end(keep=True)
    assert PARK_MIN <= took < PARK_MIN + 5
    assert not alive(deaf)
    assert alive(good)
    assert "not-kept" in [jot.kind for jot in ranks.drain_notes()]


def test_a_stopped_rank_is_not_waited_for(node: Node) -> None:
    node.start("good", "good")
    first, second = node.pids
    os.kill(first, signal.SIGSTOP)
    node.until(lambda ranks: ranks.trouble)
    assert node.end(keep=True) < PARK_MIN
    assert not alive(first)
    assert alive(second)


@pytest.mark.parametrize("changes", [{"survivors": "restart"}, {}])
def test_nobody_is_kept_against_the_jobs_or_the_gangs_will(node: Node, changes: Any) -> None:
    node.start("good", "good", **changes)
    pids = node.pids
    node.end(keep=bool(changes))
    assert not any(map(alive, pids))


def test_survivors_that_nobody_wants_are_ended_and_a_start_waits_for_that(node: Node) -> None:
    ranks = node.start("good", "good")
    pids = node.pids
    node.end(keep=True)
    assert all(map(alive, pids))
    ranks.dismiss(time.monotonic(), "the test says so")
    ranks.start(replace(PLAN, generation=2))
    node.hears(0, "ready", 2)
    assert not any(map(alive, pids))
    assert set(pids).isdisjoint(node.pids)


def test_a_survivor_that_dies_while_it_waits_is_replaced(node: Node) -> None:
    ranks = node.start("good", "good")
    first, second = node.pids
    node.end(keep=True)
    os.kill(second, signal.SIGKILL)
    node.until(lambda ranks: ranks._ranks[1].ended)
    assert {one.state for one in ranks.look(time.monotonic())} == {
        RankState.RUNNING,
        RankState.GONE,
    }
    ranks.start(replace(PLAN, generation=2))
    node.hears(1, "ready", 2)
    assert node.pids[0] == first
    assert node.pids[1] != second


def test_the_durable_interval_reaches_ranks_now_and_those_that_come(node: Node) -> None:
    ranks = node.start("good", "good")
    ranks.pace(12.5)
    for rank in (0, 1):
        node.hears(rank, "saves every 12.5")
    node.end(keep=False)
    ranks.start(replace(PLAN, generation=2))
    for rank in (0, 1):
        node.hears(rank, "saves every 12.5", 2)


def test_memory_beyond_the_nodes_bound_is_refused(node: Node) -> None:
    node.start("asks", "good", memory_max=999)
    node.end(keep=True)
    node.hears(0, "0 1000 bytes exceed the node's bound of 999")
