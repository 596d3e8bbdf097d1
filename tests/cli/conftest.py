"""A small fleet in an SQLite ledger, and the command line over it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.core.decisions import (
    Accept,
    Enlist,
    IssueGrant,
    LedgerOnly,
    MoveAttempt,
    MoveJob,
    MoveNode,
    OpenAttempt,
    OpenIncident,
)
from orchestrator.core.jobs import AttemptState, JobSpec, JobState
from orchestrator.core.nodes import ClusterName, JobName, Machine, MachineId, NodeName, NodeState
from orchestrator.core.observations import MachineSeen, Power
from orchestrator.core.pages import Page
from orchestrator.ledger import Ledger, open_ledger

Holdfast = Callable[..., Result]

CONFIG = """
clusters:
- {name: a, provider: local, nodes: 3}
- {name: b, provider: local, nodes: 2, price_per_hour: 2.5}
"""
A, B = ClusterName("a"), ClusterName("b")
TRAIN = JobName("train")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "holdfast.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_CONFIG", raising=False)
    monkeypatch.setenv("USER", "ann")
    return tmp_path


@pytest.fixture
def holdfast(home: Path) -> Holdfast:
    def run(*args: str) -> Result:
        return CliRunner().invoke(main, list(args), prog_name="holdfast")

    return run


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, datetime, int]:
    """A ledger that tells a story, written once: (its file, the story's moment, the token)."""
    path = tmp_path_factory.mktemp("story") / "ledger.db"
    ledger = open_ledger(f"sqlite:///{path}")
    now = datetime.now(UTC) - timedelta(minutes=10)
    token = ledger.acquire("a test", timedelta(seconds=1), now)
    assert token is not None
    tell(Story(ledger, now, token))
    ledger.close()
    return path, now, token


@pytest.fixture
def story(home: Path, written: tuple[Path, datetime, int]) -> Iterator[Story]:
    """Two nodes train, one is a spare, one was evicted for an XID 79; no controller runs."""
    path, now, token = written
    state = home / "holdfast-state"
    state.mkdir()
    shutil.copy(path, state / "ledger.db")
    ledger = open_ledger(f"sqlite:///{state}/ledger.db")
    yield Story(ledger, now, token)
    ledger.close()


@dataclass
class Story:
    """Writes a ledger as a controller would, which then ends."""

    ledger: Ledger
    now: datetime
    token: int

    def decide(self, *decisions: LedgerOnly) -> None:
        for decision in decisions:
            self.ledger.apply(self.token, decision, self.now)


def tell(told: Story) -> None:
    for name in ("a-001", "a-002", "a-003", "b-001"):
        cluster = A if name.startswith("a") else B
        machine = Machine(MachineId(f"local-{name}"), price_per_hour=2.5 if cluster == B else None)
        seen = MachineSeen(NodeName(name), "first", machine, Power.RUNNING)
        told.decide(Enlist(cluster, "local", seen, "listed by its provider"))
        move = MoveNode(NodeName(name), NodeState.BURN_IN, NodeState.SPARE, "healthy for 3 s")
        told.decide(move)
    spec = JobSpec(2, 2, launch={"command": ["python", "x.py"], "env": {"TOKEN": "t0p"}})
    told.decide(
        Accept(TRAIN, spec, "submitted by ann"),
        OpenAttempt(TRAIN, 1, A, "two nodes are free"),
        MoveAttempt(TRAIN, 1, AttemptState.OPEN, "fenced"),
        MoveJob(TRAIN, JobState.RUNNING, "attempt 1 is open"),
        *(seat(name) for name in ("a-001", "a-002")),
        IssueGrant(
            TRAIN, 1, 1, (NodeName("a-001"), NodeName("a-002")), (), (), "the gang is complete"
        ),
        MoveNode(
            NodeName("b-001"), NodeState.SPARE, NodeState.QUARANTINED, "CRITICAL xid:79 on gpu5"
        ),
        OpenIncident(Page.NO_SPARE, "train", "two nodes wanted, none free"),
        OpenIncident(Page.RESTARTS, "train", "rank 1 ended"),
    )


def seat(name: str) -> MoveNode:
    move = (NodeName(name), NodeState.SPARE, NodeState.IN_USE, "seated")
    return MoveNode(*move, job=TRAIN, attempt=1)


def end_job(story: Story, end: JobState) -> None:
    if end is not JobState.SUCCEEDED:
        story.decide(MoveJob(TRAIN, end, "budgets spent"))
        return
    story.decide(MoveJob(TRAIN, end, "every rank ended with 0"))
