"""The main job with a model in stages: a rank killed in the middle of one changes no bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.runtime.vault import open_vault
from orchestrator.runtime.weights import weights_digest
from tests.system.fleet import LocalFleet

pytestmark = pytest.mark.system

STAGES = """
[[stage]]
name = "see"
steps = 8
batch = 4
mixture = { pictures = 0.8, names = 0.2 }
subset = "food"

[[stage]]
name = "hear and watch"
steps = 12
batch = 4
mixture = { numbers = 0.5, motions = 0.5 }
learning_rate = 0.002

[[stage]]
name = "remember"
steps = 4
batch = 2
mixture = { passkeys = 1.0 }
prompt_max = 160
passkey_lengths = [80, 160]
rope_base = 80000.0
"""


def submit(fleet: LocalFleet, name: str) -> None:
    stages = fleet.folder / "stages.toml"
    stages.write_text(STAGES)
    train = [
        "--device",
        "cpu",
        "--preset",
        "demo",
        "--curriculum",
        str(stages),
        "--checkpoint-every",
        "3",
    ]
    fleet.submit(
        name=name,
        command=["python", "-m", "model.train", *train],
        workdir=str(Path(__file__).parents[2]),
        nodes=2,
        checkpoints=str(fleet.folder / name),
        stop_grace="2s",
        budget={"generations": 20, "attempts": 20},
    )


def committed(fleet: LocalFleet, name: str) -> int:
    """Return the step of the newest commit, 0 for none."""
    folder = fleet.folder / name
    head = open_vault(str(folder)).register.read().head if folder.exists() else None
    return 0 if head is None else head.step


def test_a_rank_killed_in_the_middle_of_a_stage_changes_no_bit(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    fleet = make_fleet(clusters={"ash": 2})
    fleet.start_daemon()
    submit(fleet, "calm")
    assert fleet.finish("calm", limit=150).state is JobState.SUCCEEDED
    submit(fleet, "hit")
    fleet.until("the second stage began", lambda: committed(fleet, "hit") > 8, limit=90)
    os.kill(fleet.ranks("hit")[1].pid, signal.SIGKILL)
    assert fleet.finish("hit", limit=150).state is JobState.SUCCEEDED
    assert (
        len(
            [
                e
                for e in fleet.events("generation-formed")
                if any(one.startswith("hit") for one in e.subjects)
            ]
        )
        > 1
    )
    assert committed(fleet, "hit") == committed(fleet, "calm") == 24
    digests = {weights_digest(str(fleet.folder / name)) for name in ("calm", "hit")}
    assert len(digests) == 1
