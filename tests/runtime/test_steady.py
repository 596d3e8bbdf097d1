"""The steady loop with real agents and ranks: nothing is repeated, nothing is different."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.lineage import Cause
from orchestrator.runtime.place import Place
from orchestrator.runtime.reports import Stage
from tests.runtime.steadygangs import SteadyGang, steady_gang, undisturbed
from tests.runtime.trees import marked, wait_for

pytest.importorskip("torch")
pytestmark = [pytest.mark.system, pytest.mark.torch]


def next_generation(steady: SteadyGang, number: int) -> None:
    """Wait until all ranks have done a step in the generation with this number."""
    wait_for(lambda: len(steady.lineage().generations) == number, limit=30, pause=0.02)
    began = steady.lineage().generations[-1].at
    wait_for(lambda: steady.completed(0, began) is not None, limit=30, pause=0.02)


def test_two_nodes_lose_ranks_and_a_node_and_repeat_nothing(tmp_path: Path) -> None:
    steps = 150
    with steady_gang(tmp_path, "ab", standbys="c", steps=steps) as steady:
        gang = steady.gang
        steady.wait_step(5)
        survivor = steady.pid("a")

        os.kill(steady.pid("b"), signal.SIGKILL)
        next_generation(steady, 2)
        os.kill(steady.pid("b"), signal.SIGSTOP)
        next_generation(steady, 3)
        assert steady.pid("a") == survivor  # the same process, three generations long
        os.kill(survivor, signal.SIGKILL)  # rank 0: the other one survives
        next_generation(steady, 4)
        gang.kill_node("a")
        next_generation(steady, 5)
        assert [m.node for m in steady.lineage().generations[-1].members] == ["b", "c"]

        steady.nodes = "bc"
        ends = steady.digests()
        causes = [one.because.cause for one in steady.lineage().generations[1:]]
        assert causes == [Cause.RANK_EXIT, Cause.RANK_STOPPED, Cause.RANK_EXIT, Cause.NODE_LOST]
        assert steady.repeated() == 0
        assert set(ends) == {undisturbed(tmp_path / "alone", world=2, steps=steps)}
        commits = steady.lineage().commits
        parents = [commit.parent for commit in commits]
        assert parents == [None, *(commit.seq for commit in commits[:-1])]
        gang.wait_stage("b", Stage.FINISHED)
        wait_for(lambda: len(marked(Place(gang.home("b"), "j.1"))) <= 5)  # no rank is left


def test_a_new_grant_swaps_a_node_at_a_step_boundary(tmp_path: Path) -> None:
    steps = 80
    with steady_gang(tmp_path, "ab", steps=steps) as steady:
        gang = steady.gang
        gang.start("c")
        steady.wait_step(5)
        survivor = steady.pid("b")
        gang.give(gang.grant(2, "bc"), to="b")
        next_generation(steady, 2)
        assert steady.pid("b") == survivor
        gang.wait_stage("a", Stage.REVOKED)
        wait_for(lambda: not [r for r in gang.report("a").ranks if r.state.value != "gone"])
        steady.nodes = "bc"
        ends = steady.digests()
        assert steady.repeated() == 0
        assert set(ends) == {undisturbed(tmp_path / "alone", world=2, steps=steps)}


def test_when_all_ranks_die_the_newest_snapshot_in_memory_is_next(tmp_path: Path) -> None:
    steps = 90
    wishes = {"save_every": 1000, "snapshot_budget": 1.0}
    with steady_gang(tmp_path, "a", per_node=2, steps=steps, wishes=wishes) as steady:
        steady.wait_step(30)
        before = steady.last_step
        for local_rank in (0, 1):
            os.kill(steady.pid("a", local_rank), signal.SIGKILL)
        next_generation(steady, 2)
        began = [one for one in steady.said if "began" in one][-2:]
        assert {one["recovered"] for one in began} == {"memory"}
        assert before - 8 <= began[0]["began"] <= before + 2
        assert not steady.lineage().commits  # nothing durable was there
        ends = steady.digests()
        assert set(ends) == {undisturbed(tmp_path / "alone", world=2, steps=steps)}


def test_the_same_failure_twice_steps_down_from_memory_to_the_vault(tmp_path: Path) -> None:
    """Poison: what is in memory is not used again, and no survivor is kept."""
    bad = tmp_path / "bad"
    poison = f"step == 25 and os.path.exists({str(bad)!r}) and sys.exit('poison')"
    wishes = {"save_every": 10, "snapshot_budget": 1.0}
    env = {"POISON": poison}
    with steady_gang(tmp_path, "a", per_node=2, steps=60, wishes=wishes, more_env=env) as steady:
        bad.touch()
        wait_for(lambda: len(steady.lineage().generations) >= 3, limit=60, pause=0.02)
        bad.unlink()
        ends = steady.digests()
        began = [(one["began"], one["recovered"]) for one in steady.said if "began" in one]
        generations = steady.lineage().generations
        assert generations[2].because.repeats(generations[1].because)
        assert "twice" in generations[2].why
        third = began[4:6]
        assert {recovered for _, recovered in third} == {"vault"}
        assert third[0][0] == 10  # the parent of the last commit, not step 24 of the memory
        assert set(ends) == {undisturbed(tmp_path / "alone", world=2, steps=60)}


@pytest.mark.parametrize("copied", [False, True])
def test_a_frozen_node_is_left_behind_and_its_peer_goes_on_from_memory(
    tmp_path: Path, copied: bool
) -> None:
    """Nothing breaks when a node freezes: its peer's collective hangs, and is not waited for.

    The standby is the peer's partner too. If it has a copy of the very step it goes on from that,
    else from the peer; the copy may be a step behind.
    """
    steps = 120
    wishes = {"save_every": 1000, "snapshot_budget": 1.0}
    spec: dict[str, Any] = {} if copied else {"partner_rate": 0.0}
    with steady_gang(tmp_path, "ab", standbys="c", steps=steps, wishes=wishes, **spec) as steady:
        gang = steady.gang
        steady.wait_step(30)
        stuck = steady.pid("a")
        frozen = [process.pid for process in marked(Place(gang.home("b"), "j.1"))]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        next_generation(steady, 2)
        generation = steady.lineage().generations[-1]
        assert generation.because.cause is Cause.NODE_LOST
        assert [m.node for m in generation.members] == ["a", "c"]
        assert steady.pid("a") != stuck
        assert "not-kept" in [note.kind for note in gang.report("a").notes]
        began = {one["where"][0]: one for one in steady.said if "began" in one}
        assert began["a"]["recovered"] == "memory"
        assert began["c"]["recovered"] in ({"partner", "peer"} if copied else {"peer"})
        assert began["a"]["began"] == began["c"]["began"] >= 20
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: not [r for r in gang.report("b").ranks if r.state.value == "running"])
        steady.nodes = "ac"
        ends = steady.digests()
        assert set(ends) == {undisturbed(tmp_path / "alone", world=2, steps=steps)}
        assert not steady.lineage().void
