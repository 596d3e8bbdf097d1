from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime import processes
from orchestrator.transports.local import LocalTransport
from providers.local import LocalMachines, LocalProvider, cut_power


@pytest.fixture
def home(tmp_path: Path) -> Path:
    provider = LocalProvider(tmp_path / "ash", LocalMachines(("ash-001",)))
    provider.machines()
    return provider.home("ash-001")


def test_a_command_gets_its_input_and_gives_its_output_and_code(home: Path) -> None:
    script = "import sys; print(sys.stdin.read().upper()); sys.stderr.write('oh'); sys.exit(3)"
    ended = LocalTransport(home)([sys.executable, "-c", script], stdin=b"word", limit=20)
    assert (ended.code, ended.out, ended.err) == (3, b"WORD\n", b"oh")


def test_a_command_carries_the_marker_of_its_node(home: Path) -> None:
    script = "import os; print(os.environ['HOLDFAST_HOME'])"
    ended = LocalTransport(home)([sys.executable, "-c", script], limit=20)
    assert ended.out.decode().strip() == str(home)


def test_no_argument_reaches_a_shell(home: Path) -> None:
    hostile = "$(touch owned); `touch owned`; ' \" \\ | & \n"
    ended = LocalTransport(home)(["printf", "%s", hostile], limit=20)
    assert ended.out.decode() == hostile
    assert not Path("owned").exists()


def test_a_machine_without_power_cannot_be_reached(home: Path) -> None:
    cut_power(home)
    with pytest.raises(TransientError, match="no route"):
        LocalTransport(home)(["true"], limit=20)


def test_a_command_that_outlives_its_limit_is_killed_with_its_children(home: Path) -> None:
    script = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    with pytest.raises(TransientError, match="no answer"):
        LocalTransport(home)([sys.executable, "-c", script], limit=0.5)
    assert processes.find(processes.Target({"HOLDFAST_HOME": os.path.realpath(home)})) == ()


def test_a_program_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(PermanentError, match="no-such-program"):
        LocalTransport(home)(["no-such-program"], limit=5)
