"""Agents as real processes: they repair alone, while no controller talks to them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import PermanentError
from orchestrator.runtime import grants
from orchestrator.runtime.lineage import Cause
from orchestrator.runtime.place import Place
from orchestrator.runtime.reports import Stage
from tests.runtime.gangs import Cluster, cluster
from tests.runtime.trees import marked, wait_for

pytestmark = pytest.mark.system


@pytest.fixture
def gang(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


def test_a_gang_forms_and_survives_a_killed_rank(gang: Cluster) -> None:
    gang.start("a", "b")
    gang.give(gang.grant(1, "ab"), to="ab")
    ranks = gang.wait_running("ab", 1)
    assert [rank.rank for rank in ranks] == [0, 1]

    assert ranks[1].pid is not None
    os.kill(ranks[1].pid, signal.SIGKILL)
    gang.wait_running("ab", 2)

    because = gang.lineage().generations[-1].because
    assert (because.cause, because.fingerprint) == (Cause.RANK_EXIT, "signal 9")
    assert (because.node, because.rank) == ("b", 1)
    kinds = [note.kind for note in gang.report("b").notes]
    assert "rank-exited" in kinds

    (gang.work / "finish").touch()
    gang.wait_stage("a", Stage.FINISHED)
    gang.wait_stage("b", Stage.FINISHED)
    assert {path.name for path in gang.work.glob("done.*")} == {"done.2.0", "done.2.1"}


def test_a_standby_takes_the_seat_of_a_lost_node(gang: Cluster) -> None:
    gang.start("a", "b", "c")
    gang.give(gang.grant(1, "ab", "c"), to="abc")
    gang.wait_running("ab", 1)
    # A standby knows its grant at once, and whom it stands by for when it has read the lineage.
    gang.wait_report("c", lambda said: (said.stage, said.members) == (Stage.STANDBY, ("a", "b")))

    gang.kill_node("a")  # the leader
    gang.wait_running("bc", 2)

    generation = gang.lineage().generations[-1]
    assert [member.node for member in generation.members] == ["b", "c"]
    assert (generation.because.cause, generation.because.node) == (Cause.NODE_LOST, "a")
    gang.wait_report("b", lambda said: said.peers_lost == ("a",))


def test_a_new_grant_swaps_a_node(gang: Cluster) -> None:
    gang.start("a", "b", "c")
    gang.give(gang.grant(1, "ab"), to="ab")
    gang.wait_running("ab", 1)

    gang.give(gang.grant(2, "bc"), to="b")  # the peers hand it on
    gang.wait_running("bc", 2)
    gang.wait_stage("a", Stage.REVOKED)

    generation = gang.lineage().generations[-1]
    assert (generation.because.cause, generation.grant) == (Cause.GRANT, 2)


def test_a_foreign_fence_stops_the_ranks(gang: Cluster) -> None:
    gang.start("a")
    gang.give(gang.grant(1, "a"), to="a")
    gang.wait_running("a", 1)

    gang.fence(2)

    report = gang.wait_stage("a", Stage.REVOKED)
    assert "foreign-fence" in [note.kind for note in report.notes]


def test_stop_ends_ranks_and_agent_and_the_guard_proves_it(gang: Cluster) -> None:
    gang.start("a", "b")
    gang.give(gang.grant(1, "ab"), to="ab")
    gang.wait_running("ab", 1)

    for node in "ab":
        assert gang.ask(node, {"ask": "stop", "reason": "enough"}) == {"stopping": True}
    for node in "ab":
        proof = gang.home(node) / "attempts" / "j.1" / "gone.json"
        wait_for(proof.exists)
        assert "enough" in proof.read_text()
    assert len(gang.lineage().generations) == 1


def test_a_controller_that_lost_its_lease_is_refused(gang: Cluster) -> None:
    gang.start("a")
    gang.ask("a", {"ask": "status"}, token=7)
    with pytest.raises(PermanentError, match="token 6 is below 7"):
        gang.ask("a", {"ask": "stop"}, token=6)


def test_without_a_register_a_gang_waits_for_a_new_grant(tmp_path: Path) -> None:
    with cluster(tmp_path, register=False) as gang:
        gang.start("a", "b")
        gang.give(gang.grant(1, "ab"), to="ab")
        rank, _ = gang.wait_running("ab", 1)
        assert rank.pid is not None
        os.kill(rank.pid, signal.SIGKILL)
        gang.wait_stage("a", Stage.WAITING)
        gang.wait_stage("b", Stage.WAITING)

        gang.give(gang.grant(2, "ab"), to="ab")
        gang.wait_running("ab", 2)


def test_an_agent_whose_guard_is_killed_ends_its_ranks_and_itself(gang: Cluster) -> None:
    gang.start("a")
    gang.give(gang.grant(1, "a"), to="a")
    gang.wait_running("a", 1)
    place = Place(gang.home("a"), "j.1")
    said = json.loads(place.agent.read_text())

    os.kill(said["guard_pid"], signal.SIGKILL)

    wait_for(lambda: not marked(place))
    assert "the guard died" in place.gone.read_text()


def test_bad_requests_are_refused_and_nothing_else(gang: Cluster) -> None:
    gang.start("a", "b")
    with pytest.raises(PermanentError, match="nobody knows how to 'dance'"):
        gang.ask("a", {"ask": "dance"})
    with pytest.raises(PermanentError, match="members cannot be read"):
        gang.ask("a", {"ask": "gone", "members": 3})
    with pytest.raises(PermanentError, match="carries its token"):
        gang.ask("a", {"ask": "status", "token": "high"})
    assert "cannot be read" in gang.ask("a", {"ask": "grant", "grant": {}})["refused"]
    other = grants.encode(gang.grant(1, "a", job="other"))
    assert "it is for other.1" in gang.ask("a", {"ask": "grant", "grant": other})["refused"]
    assert gang.ask("a", {"ask": "word", "word": {}}) == {}
    seat = vars(gang.seats["b"])
    assert gang.ask("a", {"ask": "gone", "members": [seat]}) == {"noted": 1}
    assert gang.report("a").stage is Stage.IDLE


def test_notes_are_told_until_they_are_confirmed(gang: Cluster) -> None:
    gang.start("a")
    first = gang.report("a")
    assert [note.kind for note in first.notes] == ["agent-started"]
    confirmed = gang.ask("a", {"ask": "status", "confirm": 1, "heard": first.at})
    assert confirmed["notes"] == []


def test_a_command_that_cannot_start_spends_its_budget(tmp_path: Path) -> None:
    with cluster(tmp_path, command=("/nonexistent/program",), launch="command") as gang:
        gang.start("a")
        gang.give(gang.grant(1, "a", budget={"rank-exit": 1}), to="a")
        report = gang.wait_stage("a", Stage.FAILED)
        assert "cannot start" in report.failure["fingerprint"]


FORKER = """
import os, sys, time
from pathlib import Path
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)  # no parent, no session, no exec: only the guard knows it
    os._exit(0)
exec((Path(sys.argv[1]) / "job.py").read_text())
"""


def test_forked_ranks_leave_nothing_behind(tmp_path: Path) -> None:
    bare = getattr(sys, "_base_executable", sys.executable)
    (tmp_path / "forker.py").write_text(FORKER)
    command = ("python", str(tmp_path / "forker.py"), str(tmp_path / "work"))
    with cluster(tmp_path, command=command, python=bare, preload=("json",)) as gang:
        gang.start("a", "b")
        gang.give(gang.grant(1, "ab"), to="ab")
        ranks = gang.wait_running("ab", 1)
        assert gang.report("a").warmth == "warm: json"
        place = Place(gang.home("b"), "j.1")
        before = {process.pid for process in marked(place)}

        assert ranks[1].pid is not None
        os.kill(ranks[1].pid, signal.SIGKILL)
        gang.wait_running("ab", 2)

        after = {process.pid for process in marked(place)}
        assert len(after) == len(before)  # guard, agent, warm parent, a rank and its stray
        assert len(before - after) == 2
