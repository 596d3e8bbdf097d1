"""Nodes held in Slurm by a job each, and commands inside those jobs.

Slurm gives a node to a job, so each node of ours has a *holding job*, named holdfast-NODE: its
batch script is a porter (`runtime/porter.py`) that starts guards. Commands (launcher, health
checks) are steps of that job, run by `srun --overlap`. A holding job that ended is submitted again
when its node is next needed; cancelling it ends everything that ran inside.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.engines.installed import Installed
from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime.porter import VARIABLE, door
from providers.api import Completed, Run
from providers.slurm import refuse_errors

LIMIT = 8.0  #: seconds for one of Slurm's own commands
STEP_START = 10.0  #: seconds a step may take to begin, on top of its command's limit
LIVE = frozenset({"RUNNING", "PENDING", "CONFIGURING", "SUSPENDED", "RESIZING", "REQUEUED"})


@dataclass(frozen=True, slots=True)
class Holding:
    """How holding jobs are submitted."""

    folder: Path  #: private to us, on each node's own disk
    python: str
    minutes: int
    options: tuple[str, ...] = ()  #: partition, account, qos, gres, ...


@dataclass(frozen=True, slots=True)
class HoldingJob:
    """One job of `squeue --json`."""

    id: int
    node: str
    state: str
    reason: str


class SlurmHolds:
    """The holding jobs of one cluster, and transports into them."""

    def __init__(
        self, holding: Holding, installed: Installed, own: Run, *, submits: bool = True
    ) -> None:
        """`own` runs Slurm's commands; nothing is submitted yet, and never unless `submits`."""
        self._holding, self._installed, self._own = holding, installed, own
        self._submits = submits
        self._lock = threading.Lock()
        self._jobs: dict[str, int] = {}

    def home(self, node: str) -> Path:
        """Return a node's folder, on the node."""
        return self._holding.folder / "nodes" / node

    def run(self, node: str) -> Run:
        """Return the transport of a node: steps of its holding job, with the bundle there."""
        return self._installed.wrap(node, self.bare(node))

    def bare(self, node: str) -> Run:
        """Return the transport of a node, without the bundle."""

        def step(argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
            return self._step(node, argv, stdin, limit)

        return step

    def release(self, node: str) -> str:
        """Give a node back: cancel its holding job, and with it all that runs inside."""
        jobs = [job for job in self._queue(node) if job.state in LIVE]
        for job in jobs:
            self._do("scancel", str(job.id))
        with self._lock:
            self._jobs.pop(node, None)
        return f"cancelled job {jobs[0].id}" if jobs else "nothing"

    def _step(self, node: str, argv: Sequence[str], stdin: bytes, limit: float) -> Completed:
        job = self._job(node)
        words = [
            "srun",
            *(f"--jobid={job}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}"),
            *("--quiet", "--export=PATH,HOME,LANG", "--chdir=/"),
            *("env", f"{VARIABLE}={door(self.home(node))}"),
            *("timeout", "--kill-after=2", str(max(1, round(limit))), *argv),
        ]
        ended = self._own(words, stdin=stdin, limit=limit + STEP_START)
        said = ended.err.decode(errors="replace")
        if ended.code != 0 and ("srun: error" in said or "slurmstepd: error" in said):
            self._forget(node, job)
            if _is_slurms(said):
                raise TransientError(f"{node}: {_first(said)}")
        if ended.code in (124, 137):
            raise TransientError(f"{node}: no answer within {limit:g} s")
        return Completed(ended.code, ended.out, _of_the_command(ended.err))

    def _job(self, node: str) -> int:
        """Return the running holding job of a node; submit one if there is none.

        Raises `TransientError` with Slurm's reason while it waits in the queue.
        """
        with self._lock:
            known = self._jobs.get(node)
        if known is not None:
            return known
        jobs = [job for job in self._queue(node) if job.state in LIVE]
        if not jobs and not self._submits:
            raise TransientError(f"{node}: no job of ours holds it in Slurm")
        if not jobs:
            self._submit(node)
            jobs = [job for job in self._queue(node) if job.state in LIVE]
        running = next((job for job in jobs if job.state == "RUNNING"), None)
        if running is None:
            why = jobs[0].reason if jobs else "it ended at once"
            raise TransientError(f"{node}: the job that holds it waits in Slurm: {why}")
        with self._lock:
            self._jobs[node] = running.id
        return running.id

    def _forget(self, node: str, job: int) -> None:
        with self._lock:
            if self._jobs.get(node) == job:
                del self._jobs[node]

    def _submit(self, node: str) -> None:
        about, place = self._holding, shlex.quote(str(self._installed.place))
        home = shlex.quote(str(self.home(node)))
        python = shlex.quote(about.python)
        script = (
            "#!/bin/sh\numask 077\n"
            f"while [ ! -d {place} ]; do sleep 0.2; done\n"
            f"PYTHONPATH={place} PYTHONDONTWRITEBYTECODE=1 exec {python} "
            f"-m orchestrator.runtime.porter --home {home}\n"
        )
        words = [
            *("sbatch", "--parsable", f"--job-name=holdfast-{node}", f"--nodelist={node}"),
            *("--nodes=1", "--ntasks=1", "--exclusive", "--no-requeue", f"--time={about.minutes}"),
            *("--chdir=/", "--output=/dev/null", "--export=PATH,HOME,LANG", *about.options),
        ]
        self._do(*words, stdin=script.encode())

    def _queue(self, node: str) -> list[HoldingJob]:
        out = self._do("squeue", "--json", f"--name=holdfast-{node}", "--me")
        return [job for job in parse_jobs(out) if job.node == node]

    def _do(self, *argv: str, stdin: bytes = b"") -> bytes:
        ended = self._own(argv, stdin=stdin, limit=LIMIT)
        if ended.code != 0:
            said = _first(ended.err.decode(errors="replace"))
            kind = PermanentError if "Invalid" in said or "invalid" in said else TransientError
            raise kind(f"{argv[0]}: {said}")
        return ended.out


def parse_jobs(out: bytes) -> list[HoldingJob]:
    """Read `squeue --json` of 22.05 (words) or 23.02+ (lists, {"number": N}); newest first."""
    try:
        body = json.loads(out)
        rows = list(body.get("jobs") or [])
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise TransientError(f"squeue said no JSON: {error}") from error
    refuse_errors(body)
    jobs = [job for row in rows if isinstance(row, Mapping) and (job := _job_of(row)) is not None]
    return sorted(jobs, key=lambda job: -job.id)


def _job_of(row: Mapping[str, Any]) -> HoldingJob | None:
    name, state, number = row.get("name"), row.get("job_state"), row.get("job_id")
    if isinstance(state, list):
        state = state[0] if state else ""
    if isinstance(number, Mapping):
        number = number.get("number")
    if not isinstance(name, str) or not name.startswith("holdfast-"):
        return None
    if not isinstance(state, str) or not isinstance(number, int):
        return None
    return HoldingJob(number, name.removeprefix("holdfast-"), state, str(row.get("state_reason")))


def _of_the_command(err: bytes) -> bytes:
    """Return what the command itself said, without srun's remark that it failed."""
    lines = err.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"srun: "))


def _is_slurms(said: str) -> bool:
    """Say whether the error is srun's own, not that of the command it ran."""
    own = ("Unable to", "Invalid job", "Job/step already", "not responding", "Connection")
    return any(word in said for word in (*own, "expired", "configuration"))


def _first(said: str) -> str:
    line = said.strip().splitlines()[0] if said.strip() else "no reason given"
    return "".join(one if one.isprintable() else " " for one in line)[:200]


__all__ = ["Holding", "HoldingJob", "SlurmHolds", "parse_jobs"]
