"""The demo's stage: three local clusters of three nodes, one policy file, one job file.

Nothing here is special code: both files are what a user would write, and are shown.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CLUSTERS = ("ash", "birch", "cedar")
NODES = 3  #: per cluster
JOB = "train"
WORLD = 2  #: ranks: two nodes, one rank each

#: What differs from the defaults: a cluster that fits on a laptop is chaotic and impatient.
POLICY: dict[str, Any] = {
    "burn_in": "3s",
    "patience": "5s",
    "look_every": "400ms",
    "probe_every": "10s",
    "inventory_every": "1500ms",
    "silence_max": "10s",
    "seat_wait": "10s",
    "standbys": 1,
    "evictions_per_hour": 50,
    "reboots_per_day": 50,
    "fleet_repairs_per_hour": 500,
    "relapse_window": "1s",
    "doubt_max": 1.0,
    "agent_starts_max": 50,
    "localisations_per_hour": 0,  # nodes of one computer share its network
    "intent_limit": "30s",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One run's folder and files."""

    folder: Path
    steps: int
    seed: int
    data_seed: int

    @property
    def config(self) -> Path:
        """The fleet's holdfast.yaml."""
        return self.folder / "holdfast.yaml"

    @property
    def job(self) -> Path:
        """The job file."""
        return self.folder / "job.yaml"

    @property
    def checkpoints(self) -> Path:
        """The vault: outside every cluster's folder, so that no cluster's loss takes it along."""
        return self.folder / "checkpoints"

    @property
    def state(self) -> Path:
        """Ledger, secret and the local nodes."""
        return self.folder / "state"

    def set(self) -> None:
        """Write both files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_yaml(self.config, fleet_file())
        write_yaml(self.job, self.job_file())

    def job_file(self) -> dict[str, Any]:
        """Return the job as a user would write it."""
        train = ["--steps", self.steps, "--data-seed", self.data_seed, *TRAIN]
        return {
            "name": JOB,
            "command": ["python", "-m", "model.train", *map(str, train)],
            "python": sys.executable,
            "workdir": str(self.folder),
            "nodes": WORLD,
            "ranks_per_node": 1,
            "checkpoints": str(self.checkpoints),
            "stop_grace": "2s",
            "budget": {"generations": 50, "attempts": 50},
        }


#: The rest of the training command; the seed of the weights is fixed, `--data-seed` is not.
TRAIN: tuple[Any, ...] = (
    *("--device", "cpu"),  # so that it runs, and ends with the same weights, on any machine
    *("--preset", "demo", "--batch", 32, "--lr", 0.012),
    *("--checkpoint-every", 3, "--seed", 0),
)


def fleet_file() -> dict[str, Any]:
    """Return the fleet as a user would write it."""
    return {
        "state": "state",
        "clusters": [{"name": name, "provider": "local", "nodes": NODES} for name in CLUSTERS],
        "policy": POLICY,
        "health": {"expect_gpus": 0, "every": "1s", "limit": "10s"},
    }


def policy_text() -> str:
    """Return the policy as it stands in the file."""
    return yaml.safe_dump({"policy": POLICY}, sort_keys=False, default_flow_style=False)


def write_yaml(path: Path, body: dict[str, Any]) -> None:
    """Write a file that people will read."""
    path.write_text(yaml.safe_dump(body, sort_keys=False, default_flow_style=None, width=100))
