"""A node of one environment, and the controller's hands on it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from orchestrator.runtime import grants, reports, spec, wire
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Member
from orchestrator.runtime.reports import Stage
from orchestrator.runtime.spec import AgentSpec
from tests.packaging.environments import Environment


class Node:
    """A node whose agent runs with the Python of an environment, without a register."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment, self.folder, self.home = environment, folder, folder / "node"
        self.key = secrets.token_hex(16)
        self.agent: dict[str, Any] = {}

    def launch(self, verb: str, *words: str, told: str = "") -> dict[str, Any]:
        argv = ("-m", "orchestrator.runtime.launch", verb, "--home", str(self.home), *words)
        done = self.environment.run("python", *argv, cwd=self.folder, told=told)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def start(self, *command: str) -> None:
        job = AgentSpec(
            node="n1",
            job="shell",
            attempt=1,
            token=1,
            key=self.key,
            command=command,
            launch="command",
            workdir=str(self.folder),
            progress={"kind": "none"},
            stop_grace=2.0,
        )
        self.agent = self.launch("start", told=json.dumps(spec.encode(job)))

    def ask(self, **body: Any) -> dict[str, Any]:
        host, port = self.agent["host"], self.agent["port"]
        return wire.call(host, port, self.key, {"token": 1, **body}, timeout=5.0)

    def give_grant(self) -> None:
        seat = Member("n1", self.agent["host"], self.agent["port"])
        grant = Grant("shell", 1, 1, 1, (seat,), (), 1, 1, generations_max=5)
        assert self.ask(ask="grant", grant=grants.encode(grant)) == {"accepted": True}

    def stage(self) -> Stage:
        return reports.decode(self.ask(ask="status", confirm=0)).stage
