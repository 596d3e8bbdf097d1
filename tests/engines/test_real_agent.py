"""One real agent on one local node: started, heard, found, stopped, proven gone."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.nodes import ClusterName, JobName, NodeName
from orchestrator.core.observations import AgentGone, AgentSeen, NodeReached, Observation
from orchestrator.engines.footing import Footing, nothing
from orchestrator.engines.local import LocalEngine
from orchestrator.engines.site import Keys, Site
from orchestrator.observers.reports import Asked, ask_agent
from orchestrator.runtime import processes
from orchestrator.runtime.place import Place, read_json
from orchestrator.runtime.spec import AgentSpec
from orchestrator.transports.local import LocalTransport
from providers.local import LocalMachines, LocalProvider
from tests.daemon.house import BEGIN

NODE, JOB = NodeName("ash-1"), JobName("train")


class Lot:
    """A cluster of one real folder."""

    def __init__(self, folder: Path) -> None:
        self.provider = LocalProvider(folder / "ash", LocalMachines((NODE,)))
        self.boot_id = self.provider.machines()[0].boot_id
        self.home, self.keys = self.provider.home(NODE), Keys(folder / "secret")
        self.engine = LocalEngine(lambda node: LocalTransport(self.home), lambda node: self.home)
        self.site = Site(
            cluster=ClusterName("ash"),
            provider=self.provider,
            engine=self.engine,
            run=lambda node: LocalTransport(self.home),
            home=lambda node: self.home,
            host=lambda node: "127.0.0.1",
            health=lambda node, boot_id: ("true",),
            footing=Footing(
                lambda node: LocalTransport(self.home), sys.executable, folder, nothing, nothing
            ),
        )
        self.spec = AgentSpec(
            node=NODE,
            job=JOB,
            attempt=1,
            token=5,
            key=self.keys.key(JOB, 1),
            command=("true",),
            workdir="/",
            boot_id=self.boot_id,
            python=sys.executable,
        )

    def ask(self, asked: Asked) -> tuple[Observation, ...]:
        return ask_agent(self.site, self.keys, asked, 5, BEGIN)


@pytest.fixture
def lot(tmp_path: Path) -> Iterator[Lot]:
    made = Lot(tmp_path)
    yield made
    processes.kill_home(made.home)


def test_an_agent_is_started_once_heard_and_found_again_after_we_forgot_it(lot: Lot) -> None:
    address = lot.engine.start(NODE, lot.spec)
    assert lot.engine.start(NODE, lot.spec) == address
    asked = Asked(NODE, JOB, 1, address, confirm=0)
    seen = lot.ask(asked)
    assert isinstance(seen[0], AgentSeen)
    assert (seen[0].report.node, seen[0].report.token) == (NODE, 5)
    forgotten = lot.ask(replace(asked, address=None))
    assert [type(one) for one in forgotten[:2]] == [NodeReached, AgentSeen]
    assert lot.engine.sweep(NODE, "train.1", 6)["by"] == "sweep"
    _, gone = lot.ask(asked)
    assert isinstance(gone, AgentGone)
    assert processes.find(processes.Target({"HOLDFAST_HOME": os.path.realpath(lot.home)})) == ()


def test_the_guard_vouches_for_an_agent_that_was_killed(lot: Lot) -> None:
    address = lot.engine.start(NODE, lot.spec)
    agent = read_json(Place(lot.home, "train.1").agent)
    assert agent is not None
    os.kill(int(agent["pid"]), signal.SIGKILL)
    end = time.monotonic() + 20
    while read_json(Place(lot.home, "train.1").gone) is None:
        assert time.monotonic() < end
    reached, gone = lot.ask(Asked(NODE, JOB, 1, address, confirm=0))
    assert isinstance(gone, AgentGone)
    assert gone.proof.startswith("guard")
    assert reached == NodeReached(NODE, BEGIN, lot.boot_id)
