"""Active checks on a node: real processes, ended at once by whoever brings work."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime import examination, launch, processes
from orchestrator.runtime.place import boot_id
from orchestrator.runtime.processes import Target
from orchestrator.runtime.spec import AgentSpec

SLEEPS = [sys.executable, "-c", "print('begun', flush=True); import time; time.sleep(600)"]
MARKED = frozenset({"HOLDFAST_RUN"})


def spec(home: Path) -> AgentSpec:
    return AgentSpec(
        node=home.name,
        job="train",
        attempt=1,
        token=2,
        key="ab" * 16,
        command=("true",),
        workdir=str(home),
        boot_id=boot_id(home),
    )


def until(holds: object, limit: float = 30.0) -> None:
    end = time.monotonic() + limit
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        threading.Event().wait(0.02)


def test_it_says_what_the_command_said(tmp_path: Path) -> None:
    request = {"argv": [sys.executable, "-c", "print('fine')"], "limit": 60}
    assert examination.examine(tmp_path, 1, request) == {
        "out": "fine\n",
        "code": 0,
        "stopped": False,
    }


@pytest.mark.system
def test_an_agent_that_is_started_ends_it_first_and_none_begins_beside_it(tmp_path: Path) -> None:
    home = tmp_path / "ash-1"
    home.mkdir()
    command = [sys.executable, "-m", "orchestrator.runtime.launch", "examine"]
    command += ["--home", str(home), "--token", "1"]
    request = json.dumps({"argv": SLEEPS, "limit": 600}).encode()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asked:
        assert asked.stdin is not None
        asked.stdin.write(request)
        asked.stdin.close()
        marked = Target({"HOLDFAST_HOME": str(home)}, present=MARKED)
        until(lambda: processes.find(marked))
        try:
            launch.start(home, spec(home))
            assert asked.stdout is not None
            told = json.loads(asked.stdout.read())  # it ended, though ten minutes were asked for
            assert told["stopped"]
            with pytest.raises(TransientError, match="an agent is on the node"):
                examination.examine(home, 2, {"argv": SLEEPS, "limit": 5})
        finally:
            processes.kill_home(home)


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="was not over within 1 s"):
        examination.examine(tmp_path, 1, {"argv": SLEEPS, "limit": 1})
    assert not processes.find(Target({"HOLDFAST_HOME": str(tmp_path)}, present=MARKED))


def test_an_older_controller_examines_nothing(tmp_path: Path) -> None:
    examination.examine(tmp_path, 5, {"argv": ["true"], "limit": 5})
    with pytest.raises(PermanentError, match="token 4 is below 5"):
        examination.examine(tmp_path, 4, {"argv": ["true"], "limit": 5})


@pytest.mark.parametrize(
    "request_",
    [
        None,
        [],
        {},
        {"argv": [], "limit": 5},
        {"argv": ["true"], "limit": -1},
        {"argv": ["true"], "limit": True},
        {"argv": ["true"], "limit": 1e9},
        {"argv": ["true", 5], "limit": 5},
    ],
)
def test_what_is_no_request_is_refused(tmp_path: Path, request_: object) -> None:
    with pytest.raises(PermanentError, match="not a request"):
        examination.examine(tmp_path, 1, request_)
