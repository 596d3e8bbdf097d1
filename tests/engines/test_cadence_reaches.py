"""The durable interval from the controller to a real rank, and back what its saves cost."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core import outlook
from orchestrator.core.beliefs import AgentBelief, NodeBelief
from orchestrator.core.look import Look
from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import AgentSeen
from orchestrator.core.policies import Policy
from orchestrator.observers.reports import Asked
from orchestrator.runtime import grants, processes
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Fence, Member
from orchestrator.runtime.register import Register, new_nonce
from orchestrator.runtime.reports import Note
from orchestrator.runtime.store import open_store
from tests.core.test_outlook import CALM, fleet, the_attempt
from tests.engines.test_real_agent import JOB, NODE, Lot
from tests.runtime.steadygangs import JOB as STEADY_JOB
from tests.runtime.trees import wait_for

pytest.importorskip("torch")
pytestmark = [pytest.mark.system, pytest.mark.torch]


@pytest.fixture
def lot(tmp_path: Path) -> Iterator[Lot]:
    made = Lot(tmp_path)
    yield made
    processes.kill_home(made.home)


def start(lot: Lot, folder: Path) -> Asked:
    """Let one rank train that would save once an hour."""
    vault, work = str(folder / "vault"), folder / "work"
    work.mkdir()
    register = Register(open_store(vault))
    register.append(lambda seq: Fence(seq, new_nonce(), 5, 1, time.time()), register.read())
    spec = replace(
        lot.spec,
        command=("python", str(STEADY_JOB), "100000", "0.02", "32", str(work)),
        preload=("torch",),
        python=sys.executable,
        workdir=str(work),
        checkpoints=vault,
        register=vault,
        env={"STEADY": json.dumps({"save_seconds": 3600.0})},
    )
    address = lot.engine.start(NODE, spec)
    seat = Member(NODE, address.host, address.port)
    grant = Grant(JOB, 1, 1, 5, (seat,), (), 1, 1, 50)
    body = {"ask": "grant", "token": 5, "grant": grants.encode(grant)}
    key = lot.keys.key(JOB, 1)
    assert lot.site.call(NODE, address, key, body, timeout=10.0) == {"accepted": True}
    return Asked(NODE, JOB, 1, address, confirm=0)


def commits(lot: Lot, asked: Asked) -> list[Note]:
    seen = lot.ask(asked)[0]
    assert isinstance(seen, AgentSeen)
    return [note for note in seen.report.notes if note.kind == "commit"]


@pytest.mark.timeout(120)
def test_a_rank_saves_as_often_as_the_controller_wants_and_says_what_it_costs(
    lot: Lot, tmp_path: Path
) -> None:
    asked = start(lot, tmp_path)

    def steps() -> bool:
        seen = lot.ask(asked)[0]
        assert isinstance(seen, AgentSeen)
        return any((rank.step or 0) >= 50 for rank in seen.report.ranks)

    wait_for(steps, limit=60, pause=0.05)
    assert commits(lot, asked) == []
    quick = replace(asked, save_seconds=0.3)
    notes = wait_for(lambda: len(found := commits(lot, quick)) >= 3 and found, limit=60, pause=0.1)
    assert notes
    for note in notes:
        assert 0 <= note.data["stall_seconds"] <= note.data["lag_seconds"] < 60
    begun = fleet(CALM)
    agents = (AgentBelief(JOB, 1, notes=tuple(notes)),)
    beliefs = {NodeName("a-1"): NodeBelief(NodeName("a-1"), agents=agents)}
    look = Look(replace(begun, beliefs=replace(begun.beliefs, nodes=beliefs)), Policy())
    stall, lag = outlook.measured(look, the_attempt(look))
    assert stall == timedelta(seconds=max(note.data["stall_seconds"] for note in notes))
    assert lag == timedelta(seconds=max(note.data["lag_seconds"] for note in notes))
    assert (stall, lag) != (Policy().checkpoint_stall, Policy().checkpoint_lag)
