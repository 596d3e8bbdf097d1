"""A real Ray under the contract suite of engines, its deaths, and a job held by its actors."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.engines.api import Engine
from orchestrator.engines.bundle import bundle
from orchestrator.engines.installed import Installed
from orchestrator.engines.ray import Placing, RayEngine, RayHolds
from orchestrator.engines.rayjobs import RayJobs
from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime import processes
from orchestrator.runtime.porter import door
from orchestrator.runtime.wire import direct
from orchestrator.transports.child import OwnRun
from tests.engines import test_contract as engines
from tests.engines import worlds as engine_worlds
from tests.engines.worlds import NODE
from tests.fleet import rays
from tests.fleet.rays import Ray
from tests.system.fleet import LocalFleet
from tests.system.test_main_job import script
from tests.transports.sshd import SSHD, Sshd

pytestmark = [pytest.mark.root, pytest.mark.system, pytest.mark.timeout(600)]

ALONE = 330.0  #: seconds without Ray's head; raylets with Ray's own setting end after 60


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    yield from lab(tmp_path_factory)


def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    lacks = rays.missing()
    if lacks is not None:
        pytest.skip(lacks)
    made = Ray(tmp_path_factory.mktemp("r") / "l", 3)  # short: sockets lie below it
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="class")
def folder(ray: Ray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hold the node once for all tests of the engine suite."""
    made = tmp_path_factory.mktemp("far")
    yield made
    assert holds(ray, made).release(NODE) == "given back to Ray"


class Switched:
    """The transport of a node that can be cut off."""

    away = False

    def __call__(self, argv: Any, *, stdin: bytes = b"", limit: float) -> Any:
        if self.away:
            raise TransientError("no route to host")
        return OwnRun()(argv, stdin=stdin, limit=limit)


def holds(
    ray: Ray,
    folder: Path,
    *,
    nodes: Mapping[str, float] | None = None,
    token: str | None = None,
    bare: Switched | None = None,
) -> RayHolds:
    """Return the holds of nodes that lie on 127.0.0.3 and on, each with so many CPUs."""
    wanted = nodes or {NODE: 1.0}
    placing = Placing(
        known_as={node: (f"127.0.0.{n}",) for n, node in enumerate(wanted, 3)},
        folder=folder,
        driver=str(rays.PYTHON),
        resources={node: {"CPU": cpus} for node, cpus in wanted.items()},
        room_limit=5.0,
    )
    jobs = RayJobs(
        lambda limit: direct("127.0.0.1", ray.dashboard, limit), lambda: token or ray.token
    )
    transport = bare or Switched()
    return RayHolds(placing, Installed(bundle(), folder, sys.executable), lambda _: transport, jobs)


class Waiting:
    """An engine whose caller looks again, as the daemon does, while Ray is still at it."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        verb = getattr(self._inner, name)

        def patient(*words: Any) -> Any:
            while True:  # pytest's own limit ends it
                try:
                    return verb(*words)
                except TransientError as error:
                    if "Ray" not in str(error):
                        raise

        return patient


class TestEngine:
    """The suite of all engines, on a node that an actor of a real Ray holds."""

    @pytest.fixture
    def world(self, ray: Ray, folder: Path) -> Iterator[engine_worlds.World]:
        transport = Switched()
        home = folder / "nodes" / NODE

        def make() -> Engine:
            return Waiting(RayEngine(holds(ray, folder, bare=transport)))

        @contextmanager
        def unreachable() -> Iterator[None]:
            transport.away = True
            yield
            transport.away = False

        def close() -> None:
            processes.kill_home(home)
            shutil.rmtree(home / "attempts", ignore_errors=True)
            (home / "token").unlink(missing_ok=True)

        yield engine_worlds.World("ray", make, home, "", unreachable, close)
        close()

    @pytest.fixture
    def engine(self, world: engine_worlds.World) -> Engine:
        return world.make()


def _adopt(module: Any, target: type) -> None:
    """Let a class run every test of a contract suite, on its own world."""
    for name, test in vars(module).items():
        if name.startswith("test_") and "world" in test.__code__.co_varnames:
            setattr(target, name, staticmethod(test))


_adopt(engines, TestEngine)


def world_of(folder: Path) -> engine_worlds.World:
    home = folder / "nodes" / NODE
    return engine_worlds.World("ray", lambda: None, home, "", None, lambda: None)  # type: ignore[arg-type,return-value]


def test_another_clusters_token_is_refused(ray: Ray, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"does not accept our token \(403\)"):
        holds(ray, tmp_path, token="ab" * 32).ensure(NODE)


def test_a_node_without_room_is_named_its_neighbour_is_held_and_given_back(
    ray: Ray, tmp_path: Path
) -> None:
    made = holds(ray, tmp_path, nodes={"fir-001": 0.9, "fir-002": 64.0})
    with ThreadPoolExecutor(2) as pool:
        one, two = (pool.submit(made.ensure, node, 90.0) for node in ("fir-001", "fir-002"))
        with pytest.raises(TransientError, match=r"fir-002: .*no room for \{'CPU': 64"):
            two.result()
        one.result()
    engines.until("its door opens", lambda: made.held("fir-001"))
    assert made.release("fir-001") == "given back to Ray"
    engines.until("its door is closed", lambda: not door(made.home("fir-001")).exists())
    other = holds(ray, tmp_path, nodes={"gum-001": 0.9})  # where no third fits
    engines.until("what was given back is there again", lambda: _is_held(other, "gum-001"))
    other.release("gum-001")


def test_what_another_controller_holds_under_the_same_name_is_not_taken_for_ours(
    ray: Ray, tmp_path: Path
) -> None:
    ours, theirs = (holds(ray, tmp_path / who, nodes={NODE: 0.5}) for who in ("ours", "theirs"))
    theirs.ensure(NODE, 90.0)
    ours.ensure(NODE, 90.0)
    for one in (ours, theirs):
        engines.until("a door of its own opens", lambda one=one: one.held(NODE))  # type: ignore[misc]
    assert ours.release(NODE) == "given back to Ray"
    engines.until("our door is closed", lambda: not ours.held(NODE))
    assert theirs.held(NODE)
    theirs.release(NODE)


def _is_held(made: RayHolds, node: str) -> bool:
    try:
        made.ensure(node, 60.0)
    except TransientError:
        return False
    return True


def test_a_job_runs_on_nodes_that_ray_holds_and_a_killed_rank_comes_back(
    ray: Ray, make_fleet: Callable[..., LocalFleet], tmp_path: Path
) -> None:
    if SSHD is None:
        pytest.skip("no sshd is installed here (openssh-server)")
    server = Sshd(tmp_path / "sshd")
    server.start()
    try:
        fleet = make_fleet(
            clusters={"elm": cluster(ray, server, tmp_path / "nodes")},
            policy={"sweep_after": "20s", "patience": "20s"},
            env={"RAY_TOKEN_OF_ELM": ray.token},
        )
        run_job(fleet)
    finally:
        processes.kill_home(tmp_path / "nodes" / "nodes" / "elm-001")
        processes.kill_home(tmp_path / "nodes" / "nodes" / "elm-002")
        server.stop()


def cluster(ray: Ray, server: Sshd, folder: Path) -> dict[str, Any]:
    """Return two nodes of one sshd; what tells them apart is where Ray says they are."""
    return {
        "provider": "ssh",
        "engine": "ray",
        "nodes": [
            {
                "name": f"elm-{n:03d}",
                "address": "127.0.0.1",
                "cluster_address": f"127.0.0.{n + 2}",
                "host_keys": [server.host_key],
            }
            for n in (1, 2)
        ],
        "ssh": {
            "user": server.user,
            "port": server.port,
            "key": str(server.key),
            "folder": str(folder),
            "python": sys.executable,
        },
        "ray": {
            "token": {"env": "RAY_TOKEN_OF_ELM"},
            "port": ray.dashboard,
            "python": str(rays.PYTHON),
            "resources": {"CPU": 0.5},
        },
    }


def run_job(fleet: LocalFleet) -> None:
    work = script(fleet.folder)
    fleet.start_daemon()
    fleet.submit(
        name="held",
        command=["python", "train.py", str(work)],
        workdir=str(work),
        nodes=2,
        progress={"stdout": r"step (\d+)"},
        register=str(fleet.folder / "register"),
        stop_grace="1s",
    )
    ranks = fleet.until("two ranks run", lambda: len(r := fleet.ranks("held")) == 2 and r, 180)
    os.kill(ranks[1].pid, signal.SIGKILL)
    job = fleet.finish("held", limit=180)
    assert job.state is JobState.SUCCEEDED
    assert (work / "done1").read_text() == f"{2 * sum(range(1, 61))} of 2"


def test_a_raylet_that_dies_takes_its_agent_along_with_a_proof(ray: Ray, tmp_path: Path) -> None:
    engine, world = Waiting(RayEngine(holds(ray, tmp_path))), world_of(tmp_path)
    engine.start(NODE, engines.spec(world))
    os.kill(ray.raylet("127.0.0.3").pid, signal.SIGKILL)
    gone = engines.until("a proof", lambda: engine.find(NODE, "train.1").gone)
    assert gone["by"] == "guard"
    assert engines.left(world) == ()
    ray.start_node("127.0.0.3")
    address = engine.start(NODE, engines.spec(world))  # as soon as Ray knows which one is dead
    assert engine.find(NODE, "train.1").agent == address
    processes.kill_home(world.home)


def test_gangs_go_on_while_rays_head_is_gone(ray: Ray, tmp_path: Path) -> None:
    """The last one here: a head without storage does not come back."""
    _outlive_the_head(ray, tmp_path, 5.0)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_gangs_go_on_for_minutes_while_rays_head_is_gone(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    for ray in lab(tmp_path_factory):
        _outlive_the_head(ray, tmp_path, ALONE)


def _outlive_the_head(ray: Ray, tmp_path: Path, seconds: float) -> None:
    engine, world = Waiting(RayEngine(holds(ray, tmp_path))), world_of(tmp_path)
    address = engine.start(NODE, engines.spec(world))
    raylets = [ray.life(one) for one in ray.addresses]
    os.kill(ray.gcs().pid, signal.SIGKILL)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert engine.find(NODE, "train.1").agent == address
        time.sleep(1.0)
    assert [ray.life(one) for one in ray.addresses] == raylets
    engine.start(NODE, engines.spec(world, attempt=2))
    assert engine.find(NODE, "train.2").agent is not None, "and what Ray held is used again"
    assert engine.find(NODE, "train.1").gone is not None
    processes.kill_home(world.home)
