"""Ranks forked from a warm parent: real processes, without torch where torch is not the point."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime import processes, staging
from orchestrator.runtime.lineage import Cause, Member
from orchestrator.runtime.place import Place
from orchestrator.runtime.ranks import RankPlan, Ranks
from orchestrator.runtime.spec import AgentSpec
from tests.runtime.trees import cleared, marked, wait_for

pytestmark = pytest.mark.system

PLAN = RankPlan(
    generation=1,
    generation_seq=2,
    members=(Member("n0", "127.0.0.1", 1),),
    group_rank=0,
    ranks_per_node=2,
    world_size=2,
    master_addr="127.0.0.1",
    master_port=29_500,
    agent_store=True,
    resume=None,
    restarts=0,
)
#: an interpreter that has no torch, or takes a second to import it for each test
BARE: str = getattr(sys, "_base_executable", sys.executable)

#: says what it sees, then does what its first argument says
SCRIPT = """
import json, os, sys, time
seen = {"name": __name__, "argv": sys.argv, "rank": os.environ["RANK"], "path": sys.path[0]}
seen |= {"preloaded": "preloaded" in sys.modules, "cwd": os.getcwd(), "sid": os.getsid(0)}
main = sys.modules["__main__"].__dict__ is globals()
seen |= {"pid": os.getpid(), "file": __file__, "main": main}
print(json.dumps(seen), flush=True)
exec(sys.argv[1])
"""


class Node:
    """One node's ranks, looked at as an agent would."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.work = place.home / "work"
        self.work.mkdir()
        (self.work / "script.py").write_text(SCRIPT)
        (self.work / "preloaded.py").write_text("")
        self.ranks: Ranks | None = None

    def start(self, then: str = "time.sleep(300)", plan: RankPlan = PLAN, **changes: Any) -> Ranks:
        if self.ranks is None:
            plain: dict[str, Any] = {"command": ("python", "script.py", then), "stop_grace": 5.0}
            plain |= {"preload": ("preloaded",), "workdir": str(self.work), "ranks_per_node": 2}
            plain |= {"python": BARE}
            spec = AgentSpec("n0", "job", 1, 1, "00" * 16, **{**plain, **changes})
            self.ranks = Ranks(spec, self.place)
            self.ranks.prepare()
        self.ranks.start(plan)
        return self.ranks

    def until(self, what: Callable[[Ranks], object], limit: float = 60.0) -> None:
        ranks = self.ranks
        assert ranks is not None
        wait_for(lambda: (ranks.look(time.monotonic()), what(ranks))[1], limit=limit)

    def said(self, rank: int, generation: int = 1) -> dict[str, Any]:
        log = self.place.log(generation, rank)
        self.until(lambda _: log.exists() and log.read_text().endswith("}\n"))
        seen: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
        return seen

    def pids(self) -> list[int]:
        assert self.ranks is not None
        return [one.pid for one in self.ranks.look(time.monotonic()) if one.pid is not None]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    place = Place(tmp_path, "job.1")
    place.make()
    staging.stage(place.site)
    node = Node(place)
    with cleared(tmp_path):
        yield node
        if node.ranks is not None:
            node.ranks.end(time.monotonic(), "the test is over")
            node.until(lambda ranks: ranks.gone)
            node.ranks.close()


def test_a_forked_rank_is_what_the_interpreter_would_have_made(node: Node) -> None:
    ranks = node.start()
    for rank in (0, 1):
        seen = node.said(rank)
        assert seen["name"] == "__main__"
        assert seen["main"]
        assert (seen["rank"], seen["preloaded"]) == (str(rank), True)
        assert seen["argv"] == ["script.py", "time.sleep(300)"]
        assert seen["path"] == seen["cwd"] == str(node.work)
        assert seen["sid"] == seen["pid"] == node.pids()[rank]
        shown = processes.environment(seen["pid"])
        assert shown is not None
        assert (shown["RANK"], shown["HOLDFAST_GENERATION"]) == (str(rank), "1")
        assert "HOLDFAST_ROOM" not in shown
    assert ranks.warmth == "warm: preloaded"


def test_a_module_is_forked_as_well(node: Node) -> None:
    node.start(command=("python", "-m", "script", "raise SystemExit(7)"))
    seen = node.said(1)
    assert (seen["name"], seen["preloaded"], seen["path"]) == ("__main__", True, str(node.work))
    assert seen["argv"][0] == seen["file"]
    node.until(lambda ranks: ranks.trouble)
    assert node.ranks is not None
    assert node.ranks.trouble is not None
    assert node.ranks.trouble.fingerprint.startswith("exit 7")


@pytest.mark.parametrize(
    ("then", "fingerprint"),
    [
        ("os.kill(os.getpid(), 9)", "signal 9"),
        ("raise ValueError('bad batch 17')", "exit 1: ValueError: bad batch N"),
        ("sys.exit(3)", "exit 3"),
    ],
)
def test_how_a_forked_rank_ends_is_told(node: Node, then: str, fingerprint: str) -> None:
    node.start(f"if os.environ['RANK'] == '1': {then}\nelse: time.sleep(300)")
    node.until(lambda ranks: ranks.trouble)
    assert node.ranks is not None
    trouble = node.ranks.trouble
    assert trouble is not None
    assert (trouble.cause, trouble.rank) == (Cause.RANK_EXIT, 1)
    assert trouble.fingerprint.startswith(fingerprint)


def test_all_forked_ranks_may_finish(node: Node) -> None:
    node.start("pass")
    node.until(lambda ranks: ranks.finished)


def test_an_end_takes_whatever_a_forked_rank_left(node: Node) -> None:
    detached = "import subprocess; subprocess.Popen(['sleep', '300'], start_new_session=True)"
    ranks = node.start(f"{detached}; time.sleep(300)")
    for rank in (0, 1):
        node.said(rank)
    wait_for(lambda: len(marked(node.place)) == 5)  # the parent, and two for each rank
    ranks.end(time.monotonic(), "enough")
    node.until(lambda ranks: ranks.gone)
    assert len(marked(node.place)) == 1


def test_the_next_generation_is_forked_by_the_same_parent(node: Node) -> None:
    ranks = node.start()
    first = [node.said(0)["pid"], node.said(1)["pid"]]
    parent = ranks._warm.pid
    ranks.end(time.monotonic(), "again")
    node.until(lambda ranks: ranks.gone)
    node.start(plan=replace(PLAN, generation=2))
    assert node.said(0, 2)["pid"] not in first
    assert ranks._warm.pid == parent


def test_ranks_die_with_the_warm_parent_and_another_is_made(node: Node) -> None:
    ranks = node.start()
    node.said(0)
    assert ranks._warm.pid is not None
    os.kill(ranks._warm.pid, signal.SIGKILL)
    node.until(lambda ranks: ranks.trouble)
    assert ranks.trouble is not None
    assert ranks.trouble.fingerprint == "signal 9"
    ranks.end(time.monotonic(), "again")
    node.until(lambda ranks: ranks.gone)
    node.start(plan=replace(PLAN, generation=2))
    assert node.said(1, 2)["preloaded"]
    assert ranks.warmth.startswith("warm")


THREAD = (
    "import threading, time; threading.Thread(target=time.sleep, args=(999,), daemon=True).start()"
)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (THREAD, "cold: importing preloaded started 1 threads"),
        ("1 / 0", "cold: importing preloaded ended the warm parent: ZeroDivisionError"),
        ("import os; os._exit(3)", "cold: importing preloaded ended the warm parent"),
    ],
)
def test_an_unsafe_preload_starts_cold_and_says_why(node: Node, module: str, reason: str) -> None:
    (node.work / "preloaded.py").write_text(module)
    ranks = node.start()
    assert not node.said(0)["preloaded"]
    assert ranks.warmth.startswith(reason)
    notes = [jot for jot in ranks.drain_notes() if jot.kind == "cold-start"]
    assert len(notes) == 2
    assert reason in notes[0].text


@pytest.mark.torch
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (
            "import torch\na = torch.rand(8, 8)\nb = a @ a",
            "ran tensor operations (aten.mm.default)",
        ),
        ("import torch\na = torch.zeros(40_000)", "ran tensor operations (aten.zeros.default)"),
        (
            "import torch\ntorch.set_num_threads(4)\nb = torch.rand(999, 99).sum()",
            "ran tensor operations",
        ),
    ],
)
def test_a_preload_that_multiplies_matrices_starts_cold(
    node: Node, module: str, reason: str
) -> None:
    pytest.importorskip("torch")
    (node.work / "preloaded.py").write_text(module)
    ranks = node.start(command=(sys.executable, "script.py", "pass"))
    node.until(lambda ranks: ranks.finished)
    assert "importing preloaded" in ranks.warmth
    assert reason in ranks.warmth


@pytest.mark.torch
def test_torch_is_preloaded_with_what_it_hides_and_children_compute(node: Node) -> None:
    pytest.importorskip("torch")
    then = textwrap.dedent("""
        loaded = [name in sys.modules for name in ("torch", "torch._dynamo")]
        import torch
        net = torch.nn.Linear(300, 300)
        best = torch.optim.AdamW(net.parameters())
        net(torch.rand(300, 300)).sum().backward()
        best.step()
        print(json.dumps([*loaded, torch.get_num_threads() >= 1]), flush=True)
    """)
    ranks = node.start(command=(sys.executable, "script.py", then), preload=("torch",))
    node.until(lambda ranks: ranks.finished)
    assert node.place.log(1, 1).read_text().splitlines()[-1] == "[true, true, true]"
    assert ranks.warmth == "warm: torch"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("sleep", "300"), "the command is sleep, not python"),
        (("python", "-c", "import time; time.sleep(300)"), "only [python, script.py"),
        (("python", "-u", "script.py", "pass"), "only [python, script.py"),
    ],
)
def test_what_cannot_be_forked_starts_cold(
    node: Node, command: tuple[str, ...], reason: str
) -> None:
    ranks = node.start(command=command)
    assert len(node.pids()) == 2
    assert reason in ranks.warmth
