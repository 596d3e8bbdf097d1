from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime import launch as launcher
from orchestrator.runtime import processes
from orchestrator.runtime import spec as specs
from orchestrator.runtime.place import Place, locked, read_json, read_token
from orchestrator.runtime.spec import AgentSpec
from tests.runtime.trees import TREE, cleared, grow, marked, wait_for

SPEC = AgentSpec(
    node="n1", job="job", attempt=1, token=5, key="ab" * 16, command=("true",), workdir="/"
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    shutil.copy(Path(__file__).with_name("stand_in.py"), tmp_path)
    behave(tmp_path, children=[TREE])
    with cleared(tmp_path):
        yield Place(tmp_path, "job.1")


def behave(home: Path, **plan: Any) -> None:
    (home / "stand_in.json").write_text(json.dumps(plan))


def launch(verb: str, place: Place, *more: str, said: str = "") -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "orchestrator.runtime.launch", verb, "--home", str(place.home)]
    env = {**os.environ, "HOLDFAST_HOME": str(place.home)}
    done = subprocess.run(
        [*argv, *more], input=said, capture_output=True, text=True, env=env, check=False
    )
    return done.returncode, json.loads(done.stdout if done.returncode == 0 else done.stderr)


def start(place: Place, spec: AgentSpec = SPEC) -> tuple[int, dict[str, Any]]:
    said = json.dumps(specs.encode(spec))
    return launch("start", place, "--agent", "stand_in", said=said)


def find(place: Place) -> dict[str, Any]:
    return launcher.find(place)


def proof(place: Place) -> dict[str, Any]:
    return wait_for(lambda: read_json(place.gone)) or {}


def test_an_agent_is_started_found_and_never_doubled(place: Place) -> None:
    code, first = start(place)
    assert code == 0
    assert start(place) == (0, first)
    assert find(place) == {"agent": first, "gone": None, "boot_id": first["boot_id"]}
    assert os.getsid(first["guard_pid"]) == first["guard_pid"], "the guard has its own session"


def test_two_launches_at_once_start_one_agent(place: Place) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(start, [place] * 4))
    assert {code for code, _ in said} == {0}
    assert len({agent["agent"] for _, agent in said}) == 1


def test_an_agent_killed_with_all_its_tree_leaves_a_proof(place: Place) -> None:
    _, agent = start(place)
    wait_for(lambda: len(marked(place)) >= 7)

    os.kill(agent["pid"], signal.SIGKILL)

    gone = proof(place)
    assert (gone["by"], gone["agent"]) == ("guard", agent["agent"])
    assert gone["why"] == "the agent ended (signal 9)"
    assert {one.pid for one in marked(place)} <= {agent["guard_pid"]}, "the guard is about to exit"
    assert find(place)["agent"] is None
    assert find(place)["gone"] == gone


def test_what_lost_marker_and_parents_is_gone_as_well(place: Place) -> None:
    behave(place.home, children=["env -i setsid sleep 301.25 & exit 0"])
    _, agent = start(place)
    orphan = wait_for(lambda: [one for one in processes.every() if _is(one.pid, "301.25")])

    os.kill(agent["pid"], signal.SIGKILL)

    proof(place)
    assert not any(processes.alive(one.pid, {}) for one in orphan)


def _is(pid: int, argument: str) -> bool:
    try:
        return argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def test_a_dead_guard_ends_the_agent_and_a_sweep_proves_the_rest(place: Place) -> None:
    _, agent = start(place)
    wait_for(lambda: len(marked(place)) >= 7)

    os.kill(agent["guard_pid"], signal.SIGKILL)
    wait_for(lambda: not processes.alive(agent["pid"], place.marker))

    assert find(place) == {"agent": None, "gone": None, "boot_id": agent["boot_id"]}
    code, gone = launch("sweep", place, "--run", "job.1", "--token", "5")
    assert (code, gone["by"], gone["agent"]) == (0, "sweep", agent["agent"])
    assert marked(place) == ()
    assert find(place)["gone"] == gone


def test_with_guard_and_agent_killed_together_nothing_is_proven_before_a_sweep(
    place: Place,
) -> None:
    _, agent = start(place)
    wait_for(lambda: len(marked(place)) >= 7)
    for pid in (agent["guard_pid"], agent["pid"]):
        os.kill(pid, signal.SIGKILL)

    assert find(place)["gone"] is None
    assert len(marked(place)) >= 5

    launcher.sweep(place, 5)
    assert marked(place) == ()


def test_a_start_clears_what_an_older_attempt_left_and_proves_it(place: Place) -> None:
    _, older = start(place)
    newer = Place(place.home, "job.2")

    code, agent = start(newer, replace(SPEC, attempt=2))

    assert code == 0
    assert agent["agent"] != older["agent"]
    assert marked(place) == ()
    gone = proof(place)
    assert (gone["by"], gone["agent"]) == ("sweep", older["agent"])


def test_an_agent_that_died_is_replaced_and_the_old_proof_is_withdrawn(place: Place) -> None:
    _, first = start(place)
    os.kill(first["pid"], signal.SIGKILL)
    proof(place)

    code, second = start(place)

    assert code == 0
    assert second["agent"] != first["agent"]
    assert find(place)["gone"] is None


def test_an_order_to_start_an_older_attempt_is_refused_while_a_newer_one_lives(
    place: Place,
) -> None:
    newer = Place(place.home, "job.2")
    _, agent = start(newer, replace(SPEC, attempt=2))
    code, said = start(place)
    assert code == 1
    assert "job.2 runs here already" in said["error"]
    assert find(newer)["agent"] == agent


def test_a_stale_token_changes_nothing(place: Place) -> None:
    _, agent = start(place)
    for code, said in (
        start(place, replace(SPEC, token=4)),
        launch("sweep", place, "--run", "job.1", "--token", "4"),
    ):
        assert code == 1
        assert "token 4 is below 5" in said["error"]
    assert read_token(place.home) == 5
    assert find(place)["agent"] == agent

    assert launch("sweep", place, "--run", "job.1", "--token", "6")[0] == 0
    assert read_token(place.home) == 6


def test_the_sweep_of_a_node_where_nothing_runs_is_a_proof_too(place: Place) -> None:
    never = Place(place.home, "job.9")
    gone = launcher.sweep(never, 1)
    assert (gone["by"], gone["agent"]) == ("sweep", "")
    assert launcher.sweep(never, 1) == gone
    assert launch("find", never, "--run", "job.9") == (0, launcher.find(never))


def test_an_agent_that_cannot_start_is_an_error_with_its_last_words(place: Place) -> None:
    behave(place.home, refuse="no such interface")
    code, said = start(place)
    assert code == 1
    assert "no such interface" in said["error"]


def test_an_agent_says_why_it_ends(place: Place) -> None:
    behave(place.home, why="every rank has finished", children=["sleep 300 &"])
    start(place)
    assert proof(place)["why"] == "every rank has finished"
    assert [one.pid for one in marked(place) if _is(one.pid, "300")] == []


def test_an_agent_that_is_frozen_past_its_deadline_is_ended_by_the_guard(place: Place) -> None:
    behave(place.home, alone=0.6, children=["sleep 300 &"])
    _, agent = start(place)
    os.kill(agent["pid"], signal.SIGSTOP)
    assert proof(place)["why"].startswith("alone for too long")
    assert not processes.alive(agent["pid"], place.marker)


def test_a_guard_that_is_told_to_stop_cleans_up(place: Place) -> None:
    _, agent = start(place)
    os.kill(agent["guard_pid"], signal.SIGTERM)
    assert proof(place)["why"] == "the guard was told to stop"
    assert not processes.alive(agent["pid"], place.marker)


def test_the_key_lies_on_disk_for_the_owner_alone_and_in_no_argument(place: Place) -> None:
    _, agent = start(place)
    for path in (place.spec, place.key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert specs.decode(read_json(place.spec)) == SPEC
    for pid in (agent["pid"], agent["guard_pid"]):
        assert SPEC.key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert SPEC.key.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_the_agent_runs_from_the_staged_copy_and_a_second_start_copies_nothing(
    place: Place,
) -> None:
    _, agent = start(place)
    assert str(place.site) in agent["path"]
    assert str(Path(specs.__file__).parents[2]) not in agent["path"]
    assert {path.name for path in (place.site / "orchestrator").iterdir()} >= {
        "__init__.py",
        "errors.py",
        "runtime",
    }
    staged = place.site / "orchestrator" / "errors.py"
    before = staged.stat().st_ino
    start(Place(place.home, "job.2"), replace(SPEC, attempt=2))
    assert staged.stat().st_ino == before


def test_a_file_that_an_older_version_staged_is_removed(place: Place) -> None:
    stale = place.site / "orchestrator" / "runtime" / "of_yesterday.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("raise SystemExit")
    start(place)
    assert not stale.exists()


def test_a_run_that_is_no_name_is_refused(place: Place) -> None:
    code, said = launch("find", place, "--run", "../x.1")
    assert (code, said["kind"]) == (1, "BadSpecError")


def test_a_spec_that_cannot_be_read_starts_nothing(place: Place) -> None:
    for said in ("{", '{"version": 99}'):
        code, answer = launch("start", place, said=said)
        assert (code, answer["kind"]) == (1, "BadSpecError")
    assert not place.folder.exists()


def test_a_waiting_launcher_is_not_swept_by_the_one_that_holds_the_lock(place: Place) -> None:
    with locked(place.home, limit=1):
        argv = [sys.executable, "-m", "orchestrator.runtime.launch", "start", "--agent", "stand_in"]
        waiting = subprocess.Popen(
            [*argv, "--home", str(place.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HOLDFAST_HOME": str(place.home)},
        )
        assert waiting.stdin is not None
        waiting.stdin.write(json.dumps(specs.encode(SPEC)).encode())
        waiting.stdin.close()
        root = grow(place)
        wait_for(lambda: len(marked(place)) >= 6)
    root.wait(10)  # killed by the launcher, which had waited
    assert waiting.wait(10) == 0
    assert waiting.stdout is not None
    waiting.stdout.close()


def test_a_start_is_quick(place: Place) -> None:
    start(place)  # stages
    began = time.monotonic()
    code, _ = start(Place(place.home, "job.2"), replace(SPEC, attempt=2))
    assert code == 0
    assert time.monotonic() - began < 3.0  # 0.2 s when nothing else runs; busy machines are slow
