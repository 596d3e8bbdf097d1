"""A small fleet for tests: real files, daemon, agents and ranks, all on this computer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from orchestrator.chaos import Rank, ranks_of
from orchestrator.core.jobs import OVER, Job
from orchestrator.core.nodes import Node
from orchestrator.ledger import Event, Ledger, open_ledger
from orchestrator.runtime import processes

POLICY: dict[str, Any] = {
    "burn_in": "1s",
    "patience": "5s",
    "look_every": "300ms",
    "probe_every": "10s",
    "inventory_every": "1s",
    "silence_max": "10s",
    "seat_wait": "10s",
    "reboots_per_day": 50,
    "fleet_repairs_per_hour": 500,
    "relapse_window": "1s",
    "doubt_max": 1.0,
    "agent_starts_max": 50,
    "localisations_per_hour": 0,  # nodes of one computer share its network
}


@dataclass
class LocalFleet:
    """One configuration, its daemons, and how to look at what they do."""

    folder: Path
    #: a count of local nodes, or whatever else the file says of a cluster
    clusters: Mapping[str, int | dict[str, Any]] = field(default_factory=lambda: {"ash": 3})
    policy: dict[str, Any] = field(default_factory=dict)
    ledger_url: str | None = None  #: default: SQLite in the state folder
    health: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)  #: of daemon and commands
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        clusters = [
            {"name": name, "provider": "local", "nodes": about}
            if isinstance(about, int)
            else {"name": name, **about}
            for name, about in self.clusters.items()
        ]
        body: dict[str, Any] = {
            "state": "state",
            "clusters": clusters,
            "policy": {**POLICY, **self.policy},
            "health": {"expect_gpus": 0, "every": "1s", "limit": "10s", **self.health},
        }
        if self.ledger_url is not None:
            body["ledger"] = self.ledger_url
        self.config.write_text(yaml.safe_dump(body))

    @property
    def config(self) -> Path:
        return self.folder / "holdfast.yaml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @cached_property
    def ledger(self) -> Ledger:
        return open_ledger(self.ledger_url or f"sqlite:///{self.state / 'ledger.db'}")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "orchestrator.cli", "--config", str(self.config), *words]

    def holdfast(self, *words: str, limit: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            env={**os.environ, **self.env},
        )

    def start_daemon(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "daemon.log").open("ab")
        with log:
            daemon = subprocess.Popen(
                self.command("daemon", "run"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
            )
        self.daemons.append(daemon)
        return daemon

    def submit(self, **keys: Any) -> None:
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump({"python": sys.executable, **keys}))
        said = self.holdfast("job", "submit", str(path))
        assert said.returncode == 0, said.stderr

    def job(self, name: str) -> Job | None:
        return next((job for job in self.ledger.jobs() if job.name == name), None)

    def finish(self, name: str, limit: float = 90) -> Job:
        """Wait until a job is over, one way or the other."""

        def over() -> Job | None:
            job = self.job(name)
            return job if job is not None and job.state in OVER else None

        found: Job = self.until(f"{name} is over", over, limit)
        return found

    def nodes(self) -> dict[str, Node]:
        fleet = self.ledger.snapshot(datetime.now(UTC), ())
        return {str(name): node for name, node in fleet.nodes.items()}

    def ranks(self, job: str) -> list[Rank]:
        return sorted(
            (rank for home in self.homes for rank in ranks_of(home, job)), key=lambda one: one.rank
        )

    @property
    def homes(self) -> list[Path]:
        """Every folder of a node that this computer can see."""
        found = list(self.state.glob("clusters/*/*/"))
        for about in self.clusters.values():
            for part in ("ssh", "slurm"):
                if isinstance(about, dict) and "folder" in about.get(part, {}):
                    found += Path(about[part]["folder"]).glob("nodes/*/")
        return found

    def events(self, *kinds: str) -> list[Event]:
        story = self.ledger.story(None, limit=100_000)
        return [event for event in story if not kinds or event.kind in kinds]

    def until(self, what: str, holds: Callable[[], Any], limit: float = 60) -> Any:
        """Wait for a condition of the real world; on the limit, say what was last known."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            found = holds()
            if found:
                return found
            time.sleep(0.05)
        tail = (self.folder / "daemon.log").read_text()[-6000:]
        raise AssertionError(f"not within {limit} s: {what}\n{tail}")

    def survivors(self) -> list[int]:
        homes = {os.path.realpath(home) for home in self.homes}
        found = []
        for process in processes.every():
            env = processes.environment(process.pid) or {}
            if env.get("HOLDFAST_HOME") and os.path.realpath(env["HOLDFAST_HOME"]) in homes:
                found.append(process.pid)
        return found

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGCONT)
                daemon.kill()
            daemon.wait()
        for home in self.homes:
            processes.kill_home(home)
        if "ledger" in self.__dict__:
            self.ledger.close()
