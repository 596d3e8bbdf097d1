"""What every engine keeps: exactly one guard with its agent, found again, swept, never doubled."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines.api import AgentAddress, Engine
from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.runtime import processes, ranklogs
from orchestrator.runtime.place import Place, read_json
from orchestrator.runtime.processes import Target
from orchestrator.runtime.spec import AgentSpec
from tests.engines.worlds import NODE, WORLDS, World

pytestmark = pytest.mark.system

KEY = "ab" * 32
LIMIT = 40.0


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = WORLDS[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture
def engine(world: World) -> Engine:
    return world.make()


def spec(world: World, **changed: Any) -> AgentSpec:
    one = AgentSpec(
        job="train", attempt=1, token=5, key=KEY, command=("true",), **world.spec_keys()
    )
    return replace(one, **changed)


def place(world: World, run: str = "train.1") -> Place:
    return Place(Path(os.path.realpath(world.home)), run)


def agent_file(world: World, run: str = "train.1") -> dict[str, Any]:
    found = read_json(place(world, run).agent)
    assert found is not None
    return found


def left(world: World) -> tuple[processes.Process, ...]:
    home = {"HOLDFAST_HOME": os.path.realpath(world.home)}
    return processes.find(Target(home, present=frozenset({"HOLDFAST_RUN"})))


def until(what: str, holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {LIMIT} s: {what}")


def test_where_nothing_was_started_nothing_is_found(world: World, engine: Engine) -> None:
    found = engine.find(NODE, "train.1")
    assert (found.agent, found.gone) == (None, None)
    assert found.boot_id


def test_an_agent_that_was_started_is_found_where_it_said(world: World, engine: Engine) -> None:
    address = engine.start(NODE, spec(world))
    assert engine.find(NODE, "train.1").agent == address
    assert address.agent == agent_file(world)["agent"]


def test_a_second_start_finds_the_first(world: World, engine: Engine) -> None:
    assert engine.start(NODE, spec(world)) == engine.start(NODE, spec(world))


def test_starts_at_the_same_moment_make_one_agent(world: World, engine: Engine) -> None:
    with ThreadPoolExecutor(3) as pool:
        addresses = set(pool.map(lambda _: engine.start(NODE, spec(world)), range(3)))
    assert len(addresses) == 1
    agents = [one for one in left(world) if b"runtime.agent" in cmdline(one.pid)]
    guards = [one for one in agents if b"runtime.guard" in cmdline(one.pid)]
    assert (len(agents), len(guards)) == (2, 1), "one agent, and the guard that names it"


def test_an_agent_is_adopted_after_our_own_restart(world: World, engine: Engine) -> None:
    address = engine.start(NODE, spec(world))
    again = world.make()
    assert again.find(NODE, "train.1").agent == address
    assert again.start(NODE, spec(world, token=6)) == address


def test_a_controller_that_lost_its_lease_starts_nothing(world: World, engine: Engine) -> None:
    engine.sweep(NODE, "train.1", 9)
    with pytest.raises(PermanentError, match="token 5 is below 9"):
        engine.start(NODE, spec(world))
    assert left(world) == ()


def test_a_controller_that_lost_its_lease_sweeps_nothing(world: World, engine: Engine) -> None:
    address = engine.start(NODE, spec(world, token=9))
    with pytest.raises(PermanentError, match="token 8 is below 9"):
        engine.sweep(NODE, "train.1", 8)
    assert engine.find(NODE, "train.1").agent == address


def test_a_newer_attempt_clears_the_older_one(world: World, engine: Engine) -> None:
    engine.start(NODE, spec(world))
    engine.start(NODE, spec(world, attempt=2))
    found = engine.find(NODE, "train.1")
    assert found.agent is None
    assert found.gone is not None
    assert engine.find(NODE, "train.2").agent is not None


def test_an_older_attempt_never_replaces_a_newer_one(world: World, engine: Engine) -> None:
    address = engine.start(NODE, spec(world, attempt=2))
    with pytest.raises(PermanentError, match="older attempt"):
        engine.start(NODE, spec(world))
    assert engine.find(NODE, "train.2").agent == address


def test_the_guard_vouches_for_an_agent_that_was_killed(world: World, engine: Engine) -> None:
    engine.start(NODE, spec(world))
    os.kill(int(agent_file(world)["pid"]), signal.SIGKILL)
    gone = until("a proof", lambda: engine.find(NODE, "train.1").gone)
    assert gone["by"] == "guard"
    assert left(world) == ()


def test_an_agent_that_was_killed_can_be_started_again(world: World, engine: Engine) -> None:
    first = engine.start(NODE, spec(world))
    os.kill(int(agent_file(world)["pid"]), signal.SIGKILL)
    until("a proof", lambda: engine.find(NODE, "train.1").gone)
    second = engine.start(NODE, spec(world))
    assert second.agent != first.agent
    found = engine.find(NODE, "train.1")
    assert (found.agent, found.gone) == (second, None)


def test_without_its_guard_an_agent_ends_and_only_a_sweep_proves_it(
    world: World, engine: Engine
) -> None:
    engine.start(NODE, spec(world))
    os.kill(int(agent_file(world)["guard_pid"]), signal.SIGKILL)
    until("nothing runs", lambda: left(world) == ())
    found = engine.find(NODE, "train.1")
    assert found.agent is None
    assert engine.sweep(NODE, "train.1", 6)["by"] in ("sweep", "agent")
    assert engine.find(NODE, "train.1").gone is not None


def test_a_frozen_agent_is_there_and_can_be_swept(world: World, engine: Engine) -> None:
    address = engine.start(NODE, spec(world))
    os.kill(int(agent_file(world)["pid"]), signal.SIGSTOP)
    assert engine.find(NODE, "train.1").agent == address, "silence is not death"
    assert engine.sweep(NODE, "train.1", 6)["by"]
    assert left(world) == ()


def test_frozen_guard_and_agent_are_swept_too(world: World, engine: Engine) -> None:
    engine.start(NODE, spec(world))
    for name in ("guard_pid", "pid"):
        os.kill(int(agent_file(world)[name]), signal.SIGSTOP)
    assert engine.sweep(NODE, "train.1", 6)["by"]
    assert left(world) == ()


def test_orphans_that_hid_from_their_parents_are_swept(world: World, engine: Engine) -> None:
    engine.start(NODE, spec(world))
    marker = {**os.environ, **place(world).marker}
    hide = "import os,time\nfor _ in (1, 2):\n  os.fork() and os._exit(0)\n  os.setsid()\n"
    script = hide + "time.sleep(600)"
    os.spawnve(os.P_WAIT, "/usr/bin/env", ["env", "python3", "-S", "-c", script], marker)
    until("it hides", lambda: any(b"setsid" in cmdline(one.pid) for one in left(world)))
    assert engine.sweep(NODE, "train.1", 6)["by"]
    assert left(world) == ()


def test_a_proof_is_kept_and_told_again(world: World, engine: Engine) -> None:
    engine.start(NODE, spec(world))
    first = engine.sweep(NODE, "train.1", 6)
    assert engine.sweep(NODE, "train.1", 7) == first
    assert engine.find(NODE, "train.1").gone == first


def test_what_never_ran_is_proven_gone(world: World, engine: Engine) -> None:
    assert engine.sweep(NODE, "other.3", 6)["by"] == "sweep"
    found = engine.find(NODE, "other.3")
    assert found.agent is None
    assert found.gone is not None


def test_a_sweep_of_one_attempt_leaves_another_alone(world: World, engine: Engine) -> None:
    address = engine.start(NODE, spec(world, attempt=2))
    engine.sweep(NODE, "train.1", 6)
    assert engine.find(NODE, "train.2").agent == address


def test_a_node_that_cannot_be_reached_is_an_error_that_may_pass(
    world: World, engine: Engine
) -> None:
    engine.find(NODE, "train.1")
    with world.unreachable():
        for act in (
            lambda: engine.start(NODE, spec(world)),
            lambda: engine.find(NODE, "train.1"),
            lambda: engine.sweep(NODE, "train.1", 6),
            lambda: engine.logs(NODE, "train.1", None),
        ):
            with pytest.raises(TransientError):
                act()


def test_a_node_that_answers_again_is_used_again(world: World, engine: Engine) -> None:
    engine.find(NODE, "train.1")
    with world.unreachable(), pytest.raises(TransientError):
        engine.find(NODE, "train.1")

    def found() -> AgentAddress | None:
        try:
            return engine.start(NODE, spec(world))
        except TransientError:
            return None

    assert until("it is started", found)


def test_no_key_and_no_secret_is_in_any_argument_list(world: World, engine: Engine) -> None:
    engine.start(NODE, spec(world, env={"TOKEN": "hunter2hunter2"}))
    for process in processes.every():
        words = cmdline(process.pid)
        assert KEY.encode() not in words
        assert b"hunter2hunter2" not in words


def test_only_its_user_may_read_what_an_agent_was_told(world: World, engine: Engine) -> None:
    engine.start(NODE, spec(world))
    for path in (place(world).spec, place(world).key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place(world).folder.stat().st_mode) == 0o700
    assert json.loads(place(world).spec.read_text())["key"] == KEY


@pytest.mark.parametrize("run", ["../../x.1", "x", "x.y", "", "a/b.1", "-x.1"])
def test_no_name_of_an_attempt_leaves_the_nodes_folder(
    world: World, engine: Engine, run: str, tmp_path: Path
) -> None:
    before = sorted(str(path) for path in tmp_path.rglob("gone.json"))
    for act in (
        lambda: engine.find(NODE, run),
        lambda: engine.sweep(NODE, run, 6),
        lambda: engine.logs(NODE, run, None),
    ):
        with pytest.raises(HoldfastError):
            act()
    assert sorted(str(path) for path in tmp_path.rglob("gone.json")) == before


def written(world: World, name: str, text: bytes) -> Path:
    folder = place(world).logs
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text)
    return folder / name


def test_what_ranks_wrote_is_named_and_read_from_any_byte_on(world: World, engine: Engine) -> None:
    assert engine.logs(NODE, "train.1", None) == []
    written(world, "g1.r0.log", b"old")
    written(world, "g2.r1.log", b"step 1\nstep 2\n\xff")
    written(world, "agent.log", b"no rank's")
    named = engine.logs(NODE, "train.1", None)
    assert [(one.generation, one.rank, one.size) for one in named] == [(1, 0, 3), (2, 1, 15)]
    (piece,) = engine.logs(NODE, "train.1", {(2, 1): 7, (9, 9): 0})
    assert (piece.at, piece.data) == (7, b"step 2\n\xff")
    (piece,) = engine.logs(NODE, "train.1", {(2, 1): -8})
    assert (piece.at, piece.data) == (7, b"step 2\n\xff")
    (piece,) = engine.logs(NODE, "train.1", {(2, 1): 99})
    assert (piece.at, piece.size) == (0, 15), "a shorter file is another one: from its beginning"


def test_a_long_log_comes_in_pieces_from_where_the_last_one_ended(
    world: World, engine: Engine
) -> None:
    text = bytes(range(256)) * (3 * ranklogs.ANSWER_BYTES // 512)
    written(world, "g1.r0.log", text)
    (piece,) = engine.logs(NODE, "train.1", {(1, 0): -(10**9)})
    assert text.endswith(piece.data)
    assert len(piece.data) == ranklogs.ANSWER_BYTES
    got = b""
    while len(got) < len(text):
        (piece,) = engine.logs(NODE, "train.1", {(1, 0): len(got)})
        assert piece.at == len(got)
        assert 0 < len(piece.data) <= ranklogs.ANSWER_BYTES
        got += piece.data
    assert got == text


def test_no_log_leads_out_of_its_folder(world: World, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    folder = written(world, "g1.r0.log", b"mine").parent
    (folder / "g1.r1.log").symlink_to(tmp_path / "secret")
    assert [one.rank for one in engine.logs(NODE, "train.1", None)] == [0]
    assert engine.logs(NODE, "train.1", {(1, 1): 0}) == []


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
