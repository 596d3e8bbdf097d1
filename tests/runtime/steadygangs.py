"""Gangs whose ranks run `steadyjob.py`, and what they said."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.runtime.lineage import Lineage
from tests.runtime.gangs import Cluster, cluster
from tests.runtime.trees import wait_for

JOB = Path(__file__).with_name("steadyjob.py")
Said = list[dict[str, Any]]


class SteadyGang:
    """One attempt of the job, on a `Cluster`."""

    def __init__(self, gang: Cluster, nodes: str, per_node: int) -> None:
        self.gang, self.nodes, self.per_node = gang, nodes, per_node

    @property
    def said(self) -> Said:
        """Return every line that any rank said, in order of time."""
        files = sorted((self.gang.root / "work").glob("said.*"))
        lines = [line for file in files for line in file.read_text().splitlines(keepends=True)]
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return sorted(whole, key=lambda one: one["at"])

    @property
    def last_step(self) -> int:
        return max((one["step"] for one in self.said if "step" in one), default=0)

    def wait_step(self, step: int, limit: float = 60.0) -> None:
        """Wait until every rank of a generation has completed a step at least this far."""
        wait_for(lambda: self.completed(step) is not None, limit=limit, pause=0.02)

    def completed(self, step: int, since: float = 0.0) -> float | None:
        """Return when all ranks had completed some step from `step` on; None if they have not."""
        world = len(self.nodes) * self.per_node
        ranks: dict[int, dict[int, float]] = {}
        for one in self.said:
            if one.get("step", -1) >= step and one["at"] > since:
                ranks.setdefault(one["step"], {})[one["rank"]] = one["at"]
        whole = [max(found.values()) for found in ranks.values() if len(found) == world]
        return min(whole, default=None)

    def digests(self, limit: float = 90.0) -> list[tuple[str, float, int]]:
        """Wait for the end; return what each rank's weights, rate and tokens amount to."""
        world = len(self.nodes) * self.per_node

        def ended() -> list[tuple[str, float, int]]:
            found = [one for one in self.said if "digest" in one]
            done = {one["rank"]: (one["digest"], one["lr"], one["tokens"]) for one in found}
            return list(done.values()) if len(done) == world else []

        return wait_for(ended, limit=limit, pause=0.05)

    def repeated(self) -> int:
        """Return how many steps any rank did more than once."""
        seen: dict[tuple[int, int], int] = {}
        for one in self.said:
            if "step" in one:
                key = (one["rank"], one["step"])
                seen[key] = seen.get(key, 0) + 1
        return max([count - 1 for count in seen.values()], default=0)

    def lineage(self) -> Lineage:
        return self.gang.lineage()

    def pid(self, node: str, local_rank: int = 0) -> int:
        pid = self.gang.report(node).ranks[local_rank].pid
        assert pid is not None
        return pid


@contextmanager
def steady_gang(
    root: Path,
    nodes: str,
    *,
    steps: int,
    standbys: str = "",
    per_node: int = 1,
    pause: float = 0.02,
    width: int = 32,
    wishes: dict[str, Any] | None = None,
    more_env: dict[str, str] | None = None,
    **spec: Any,
) -> Iterator[SteadyGang]:
    """Start a gang that trains with the steady loop."""
    plain: dict[str, Any] = {
        "command": ("python", str(JOB), str(steps), str(pause), str(width), str(root / "work")),
        "python": sys.executable,
        "preload": ("torch",),
        "checkpoints": str(root / "vault"),
        "env": {"STEADY": json.dumps({"save_every": 10, **(wishes or {})}), **(more_env or {})},
        "ranks_per_node": per_node,
    }
    with cluster(root, register=False, **{**plain, **spec}) as gang:
        gang.register_url = str(root / "vault")
        gang.fence(1)
        gang.start(*nodes, *standbys)
        gang.give(gang.grant(1, nodes, standbys), to=nodes + standbys)
        yield SteadyGang(gang, nodes, per_node)


def undisturbed(
    folder: Path,
    *,
    world: int,
    steps: int,
    width: int = 32,
    more_env: dict[str, str] | None = None,
) -> tuple[str, float, int]:
    """Run the job as torchrun would, without Holdfast; return what its ranks end with."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    base = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
    base |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    base |= {"PYTHONPATH": str(JOB.parents[2]), **(more_env or {})}
    command = [sys.executable, str(JOB), str(steps), "0", str(width), str(folder)]
    ranks = []
    for rank in range(world):
        env = {**base, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(subprocess.Popen(command, env=env, cwd=folder))
    try:
        assert [rank.wait(timeout=280) for rank in ranks] == [0] * world
    finally:
        for one in ranks:
            one.kill()
            one.wait()
    said = [json.loads(f.read_text().splitlines()[-1]) for f in sorted(folder.glob("said.*"))]
    ends = {(one["digest"], one["lr"], one["tokens"]) for one in said}
    assert len(ends) == 1
    return ends.pop()
