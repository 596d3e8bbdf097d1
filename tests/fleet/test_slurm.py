"""A real Slurm under the contract suites of providers and engines, and a job on it end to end."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.engines.api import Engine
from orchestrator.engines.bundle import bundle
from orchestrator.engines.installed import Installed
from orchestrator.engines.launched import LaunchedEngine
from orchestrator.engines.slurm import Holding, SlurmHolds, parse_jobs
from orchestrator.errors import TransientError
from orchestrator.runtime import processes
from orchestrator.transports.child import OwnRun
from providers.api import OWNER
from providers.slurm import SlurmNodes, SlurmProvider, parse_nodes
from tests.engines import test_contract as engines
from tests.engines import worlds as engine_worlds
from tests.fleet import slurm as slurms
from tests.fleet.slurm import Slurm
from tests.providers import test_contract as providers
from tests.providers import worlds as provider_worlds
from tests.system.fleet import LocalFleet
from tests.system.test_main_job import script

pytestmark = [pytest.mark.root, pytest.mark.system]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    lacks = slurms.missing()
    if lacks is not None:
        pytest.skip(lacks)
    made = Slurm(tmp_path_factory.mktemp("slurm"), 3, prefix="ash-00")
    made.start()
    yield made
    made.stop()


def own(slurm: Slurm) -> OwnRun:
    return OwnRun({"SLURM_CONF": str(slurm.conf)})


@pytest.fixture(scope="module")
def folder(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hold the nodes once for all tests of the engine suite."""
    yield tmp_path_factory.mktemp("far")
    slurm.do("scancel", "--me")
    engines.until("it is idle", lambda: not slurm.do("squeue", "--noheader").strip())


class TestProvider:
    """The suite of all providers, on three nodes of a real Slurm."""

    @pytest.fixture
    def world(self, slurm: Slurm) -> Iterator[provider_worlds.World]:
        nodes = provider_worlds.NODES
        about = SlurmNodes("ash", nodes, "h100", 8, "first", 2.0, serials={n: (n,) for n in nodes})
        broken = OwnRun({"SLURM_CONF": str(slurm.silent)})

        class Switched:
            down = False

            def __call__(self, argv: Any, *, stdin: bytes = b"", limit: float) -> Any:
                run = broken if self.down else own(slurm)
                return run(argv, stdin=stdin, limit=limit)

        switch = Switched()

        @contextmanager
        def down() -> Iterator[None]:
            switch.down = True
            yield
            switch.down = False

        def cordon_as(who: str, node: str, reason: str) -> None:
            del who  # Slurm notes the user itself
            slurm.do("scontrol", "update", f"NodeName={node}", "State=DRAIN", f"Reason={reason}")

        def make() -> SlurmProvider:
            return SlurmProvider(about, switch)

        yield provider_worlds.World(make(), make, down, None, cordon_as, knows_boots=False)
        for node in json.loads(slurm.do("sinfo", "--json"))["nodes"]:
            if "DRAIN" in node["state_flags"]:
                slurm.do("scontrol", "update", f"NodeName={node['name']}", "State=RESUME")


class TestEngine:
    """The suite of all engines, inside jobs of a real Slurm."""

    @pytest.fixture
    def world(self, slurm: Slurm, folder: Path) -> Iterator[engine_worlds.World]:
        run = own(slurm)
        away = OwnRun({"SLURM_CONF": str(slurm.silent)})

        class Switched:
            away = False

            def __call__(self, argv: Any, *, stdin: bytes = b"", limit: float) -> Any:
                return (away if self.away else run)(argv, stdin=stdin, limit=limit)

        switch = Switched()

        def make() -> Engine:
            installed = Installed(bundle(), folder, sys.executable)
            made = SlurmHolds(Holding(folder, sys.executable, 60), installed, switch)
            return Waiting(LaunchedEngine(made.run, made.home, lambda node: installed.launch))

        @contextmanager
        def unreachable() -> Iterator[None]:
            switch.away = True
            yield
            switch.away = False

        home = folder / "nodes" / engine_worlds.NODE

        def close() -> None:
            processes.kill_home(home)
            shutil.rmtree(home / "attempts", ignore_errors=True)
            (home / "token").unlink(missing_ok=True)

        yield engine_worlds.World("slurm", make, home, "", unreachable, close)
        close()

    @pytest.fixture
    def engine(self, world: engine_worlds.World) -> Engine:
        return world.make()


class Waiting:
    """An engine whose caller looks again, as the daemon does, while Slurm lets a job wait."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        verb = getattr(self._inner, name)

        def patient(*words: Any) -> Any:
            def tried() -> Any:
                try:
                    return (verb(*words),)
                except TransientError as error:
                    if "waits in Slurm" not in str(error):
                        raise
                    return None

            return engines.until("the job that holds it runs", tried)[0]

        return patient


def _adopt(module: Any, target: type) -> None:
    """Let a class run every test of a contract suite, on its own world."""
    for name, test in vars(module).items():
        if name.startswith("test_") and "world" in test.__code__.co_varnames:
            setattr(target, name, staticmethod(test))


_adopt(providers, TestProvider)
_adopt(engines, TestEngine)


def cluster(slurm: Slurm, folder: Path) -> dict[str, Any]:
    return {
        "provider": "slurm",
        "nodes": slurm.nodes,
        "slurm": {"conf": str(slurm.conf), "folder": str(folder), "python": sys.executable},
    }


def test_a_job_runs_inside_slurm_and_a_killed_rank_comes_back(
    slurm: Slurm, make_fleet: Callable[..., LocalFleet], tmp_path: Path
) -> None:
    slurm.do("scancel", "--me")  # those of the suites hold their nodes for another folder
    engines.until("it is idle", lambda: not slurm.do("squeue", "--noheader").strip())
    fleet = make_fleet(
        clusters={"ash": cluster(slurm, tmp_path / "nodes")}, policy={"sweep_after": "20s"}
    )
    work = script(fleet.folder)
    fleet.start_daemon()
    fleet.submit(
        name="inside",
        command=["python", "train.py", str(work)],
        workdir=str(work),
        nodes=2,
        progress={"stdout": r"step (\d+)"},
        register=str(fleet.folder / "register"),
        stop_grace="1s",
    )
    ranks = fleet.until("two ranks run", lambda: len(r := fleet.ranks("inside")) == 2 and r, 180)
    os.kill(ranks[1].pid, 9)
    job = fleet.finish("inside", limit=180)
    assert job.state is JobState.SUCCEEDED
    assert (work / "done1").read_text() == f"{2 * sum(range(1, 61))} of 2"
    fleet.until("nothing is left", lambda: not left(fleet))
    held = parse_jobs(slurm.do("squeue", "--json").encode())
    running = {one.node for one in held if one.state == "RUNNING"}
    assert running == set(slurm.nodes), "the nodes stay ours between jobs"
    slurm.do("scancel", "--me")


def left(fleet: LocalFleet) -> list[int]:
    return [
        pid for pid in fleet.survivors() if "HOLDFAST_RUN" in (processes.environment(pid) or {})
    ]


def test_a_drain_of_ours_is_told_from_an_operators(slurm: Slurm) -> None:
    provider = SlurmProvider(SlurmNodes("ash", tuple(slurm.nodes), "x", 0, "first"), own(slurm))
    provider.cordon(slurm.nodes[0], "XID 79")
    seen = {node.name: node for node in parse_nodes(slurm.do("sinfo", "--json").encode())}
    assert seen[slurm.nodes[0]].reason == f"{OWNER}: XID 79"
    assert "XID 79" in slurm.do("sinfo", "-R")
    assert provider.uncordon(slurm.nodes[0])
