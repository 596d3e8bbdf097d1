"""One run of the demo: a daemon of its own, one job, everything found again from the outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import OVER, AttemptState, JobState
from orchestrator.core.nodes import JobName
from orchestrator.demo.stage import JOB, WORLD, Stage
from orchestrator.demo.watch import Watch
from orchestrator.errors import PermanentError
from orchestrator.ledger import open_ledger
from orchestrator.ledger.api import Ledger
from orchestrator.runtime import processes
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store

STOP_LIMIT = 15.0  #: seconds the daemon has to stop cleanly


@dataclass(slots=True)
class Troupe:
    """A fleet, its daemon and its job while they play."""

    stage: Stage
    watch: Watch
    ledger: Ledger
    register: Register
    began_at: float
    daemon: subprocess.Popen[bytes] | None = None
    stopped_at: float = 0.0
    starts: list[float] = field(default_factory=list)  #: when the daemon was started

    @classmethod
    def assemble(cls, stage: Stage) -> Troupe:
        """Write the files; nothing runs yet."""
        stage.set()
        stage.checkpoints.mkdir()
        return cls(
            stage=stage,
            watch=Watch(stage.state, JOB, WORLD),
            ledger=open_ledger(f"sqlite:///{stage.state / 'ledger.db'}"),
            register=Register(open_store(str(stage.checkpoints))),
            began_at=time.time(),
        )

    def begin(self) -> None:
        """Start the daemon and submit the job."""
        self.start_daemon()
        self._holdfast("job", "submit", str(self.stage.job))

    def start_daemon(self) -> None:
        """Start the controller; its log stands beside the ledger."""
        with (self.stage.folder / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                self._command("daemon", "run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.starts.append(time.time())

    def _command(self, *words: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "orchestrator.cli",
            "--config",
            str(self.stage.config),
            *words,
        ]

    def _holdfast(self, *words: str) -> None:
        ended = subprocess.run(self._command(*words), capture_output=True, timeout=60, check=False)
        if ended.returncode != 0:
            said = (ended.stderr or ended.stdout).decode(errors="replace")
            raise PermanentError(f"holdfast {' '.join(words)} failed: {said}")

    @property
    def daemon_lives(self) -> bool:
        """Say whether the controller runs."""
        return self.daemon is not None and self.daemon.poll() is None

    @property
    def controller_acts(self) -> bool:
        """Say whether the controller runs and has said so in the ledger since its last start."""
        if not self.daemon_lives:
            return False
        since = datetime.fromtimestamp(self.starts[-1], UTC)
        events = self.ledger.story("controller", since=since)
        return any(event.kind == "daemon-started" for event in events)

    def fleet(self) -> Fleet:
        """Return the ledger's present snapshot."""
        return self.ledger.snapshot(datetime.now(UTC), ())

    def job_state(self) -> JobState | None:
        """Return where the job stands; None before the daemon has accepted it."""
        job = next((one for one in self.ledger.jobs() if one.name == JobName(JOB)), None)
        return None if job is None else job.state

    @property
    def over(self) -> bool:
        """Say whether the job has ended, one way or the other."""
        state = self.job_state()
        return state is not None and state in OVER

    def has_standby(self) -> bool:
        """Say whether the newest grant has a standby, and all its agents have accepted it."""
        fleet = self.fleet()
        for attempt in fleet.attempts:
            if attempt.state is AttemptState.OPEN and attempt.grant is not None:
                grant = attempt.grant
                agents = [
                    fleet.beliefs.nodes[node].agent(attempt.job, attempt.number)
                    for node in grant.seats
                    if node in fleet.beliefs.nodes
                ]
                accepted = [
                    agent.report.grant >= grant.number
                    for agent in agents
                    if agent is not None and agent.report is not None
                ]
                return bool(grant.standbys) and len(accepted) == len(grant.seats) and all(accepted)
        return False

    def formed_at(self) -> float | None:
        """Return when the newest generation was formed."""
        generation = self.register.read().generation
        return None if generation is None else generation.at

    def commits_since(self, moment: float) -> int:
        """Count the commits that count and were written after a moment."""
        return sum(1 for commit in self.register.read().commits if commit.at > moment)

    def dismiss(self) -> int:
        """Stop the daemon and whatever is left; return how many processes had to be swept."""
        if self.daemon is not None and self.daemon_lives:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        return sum(
            processes.kill_home(home) for home in sorted(self.stage.state.glob("clusters/*/*/"))
        )

    def orphans(self) -> int:
        """Count the living processes of this fleet's nodes."""
        homes = {os.path.realpath(home) for home in self.stage.state.glob("clusters/*/*/")}
        found = 0
        for process in processes.every():
            env = processes.environment(process.pid)
            if env and os.path.realpath(env.get("HOLDFAST_HOME") or Path("/nowhere")) in homes:
                found += 1
        return found
