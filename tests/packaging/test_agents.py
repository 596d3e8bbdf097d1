"""An agent needs no more than `[node]`; in truth it needs no more than a Python, 3.10 or newer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.runtime import processes
from orchestrator.runtime.reports import Stage
from tests.packaging.nodes import Node
from tests.runtime.trees import wait_for

pytestmark = pytest.mark.system

JOB = """
echo "$GROUP_RANK of $NNODES in $HOLDFAST_RUN" > said
while [ ! -e finish ]; do sleep 0.02; done
"""


@pytest.fixture(params=["node_only", "bare_310"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    made = Node(request.getfixturevalue(request.param), tmp_path)
    yield made
    processes.kill_home(made.home)


def test_an_agent_runs_a_shell_job_where_nothing_heavy_is_installed(node: Node) -> None:
    (node.folder / "job.sh").write_text(JOB)
    node.start("/bin/sh", "job.sh")
    node.give_grant()
    said = node.folder / "said"
    wait_for(lambda: said.exists() and said.read_text().endswith("\n"))
    assert said.read_text() == "0 of 1 in shell.1\n"

    process = Path("/proc", str(node.agent["pid"]))
    assert process.joinpath("cmdline").read_text().startswith(str(node.environment.python))
    mapped = process.joinpath("maps").read_text()
    assert not [name for name in ("pydantic", "torch", "sqlalchemy") if name in mapped]

    (node.folder / "finish").touch()
    wait_for(lambda: node.stage() is Stage.FINISHED)
    assert node.launch("sweep", "--run", "shell.1", "--token", "1")["at"]
    found = node.launch("find", "--run", "shell.1")
    assert found["agent"] is None
    assert found["gone"] is not None
