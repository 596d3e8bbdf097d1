"""The examples run as their readers would run them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load_job
from orchestrator.runtime.reports import Stage
from tests.runtime.gangs import Cluster, cluster
from tests.runtime.trees import wait_for

pytest.importorskip("torch")
pytestmark = [pytest.mark.system, pytest.mark.torch]

EXAMPLES = Path(__file__).parents[2] / "examples"


def code(name: str) -> Counter[str]:
    """Return the lines of a script without its docstring, comments and indentation."""
    text = re.sub(r'^""".*?"""', "", (EXAMPLES / name).read_text(), count=1, flags=re.DOTALL)
    lines = (line.split("  #")[0].strip() for line in text.splitlines())
    return Counter(line for line in lines if line)


def test_a_plain_loop_becomes_steady_with_ten_changed_lines() -> None:
    changed = code("steady.py") - code("train.py")
    assert changed.total() <= 10, sorted(changed)


def test_the_job_of_the_steady_example_is_right() -> None:
    spec = load_job(EXAMPLES / "steady.yaml").to_spec()
    assert spec.checkpoints is not None
    assert spec.launch["preload"] == ["torch"]


def logs(gang: Cluster) -> str:
    files = sorted(gang.root.glob("nodes/*/attempts/j.1/logs/g*"))
    return "\n".join(file.read_text() for file in files)


def trains_through_a_kill(
    root: Path, script: str, *more: str, kill_when: Callable[[Cluster], object]
) -> str:
    """Start an example on two nodes, kill a rank at some moment; return all logs."""
    spec: dict[str, Any] = {
        "command": ("python", str(EXAMPLES / script), *more),
        "python": sys.executable,
        "preload": ("torch",),
        "checkpoints": str(root / "vault"),
    }
    with cluster(root, register=False, **spec) as gang:
        gang.register_url = str(root / "vault")
        gang.fence(1)
        gang.start("a", "b")
        gang.give(gang.grant(1, "ab"), to="ab")
        wait_for(lambda: kill_when(gang), limit=60, pause=0.05)
        pid = gang.report("b").ranks[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        gang.wait_stage("a", Stage.FINISHED, limit=90)
        assert len(gang.lineage().generations) == 2
        return logs(gang)


def test_the_steady_example_survives_a_killed_rank(tmp_path: Path) -> None:
    more = ("--steps", "100", "--pause", "0.03")
    said = trains_through_a_kill(
        tmp_path, "steady.py", *more, kill_when=lambda gang: "step 20 " in logs(gang)
    )
    begun = re.findall(r"rank (\d) of 2, pid (\d+), goes on at (\d+)", said)
    assert len(begun) == 4
    assert len({pid for rank, pid, _ in begun if rank == "0"}) == 1  # it survived
    assert int(begun[-1][2]) >= 20
    assert all(said.count(f"step {step} loss") == 2 for step in range(1, 101))
    assert len(set(re.findall(r"done: error (\S+)", said))) == 1


def test_the_sharded_example_goes_on_from_its_last_commit(tmp_path: Path) -> None:
    more = ("--steps", "600")
    said = trains_through_a_kill(
        tmp_path, "fsdp.py", *more, kill_when=lambda gang: gang.lineage().commits
    )
    assert len(re.findall(r"done: error", said)) == 2
    begun = [int(step) for step in re.findall(r"rank \d of 2 begins at step (\d+)", said)]
    assert len(begun) == 4
    assert sorted(begun)[2:] == [max(begun)] * 2  # both from the same commit
    assert max(begun) >= 20


def test_the_trainer_example_goes_on_from_its_last_commit(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    more = ("--steps", "400")
    said = trains_through_a_kill(
        tmp_path, "trainer.py", *more, kill_when=lambda gang: gang.lineage().commits
    )
    assert len(re.findall(r"done: error", said)) == 2
    begun = re.findall(r"begins from (\S+)", said)
    assert begun.count("None") == 2
    assert len(begun) == 4
    assert len({one for one in begun if one != "None"}) == 1  # both from the same commit
