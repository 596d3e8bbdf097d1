from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime import processes
from orchestrator.transports.local import OUTPUT_MAX, LocalTransport
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
    end = time.monotonic() + 10  # a killed process takes a moment to be gone
    while processes.find(processes.Target({"HOLDFAST_HOME": os.path.realpath(home)})):
        assert time.monotonic() < end


def test_a_program_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(PermanentError, match="no-such-program"):
        LocalTransport(home)(["no-such-program"], limit=5)


def test_only_the_beginning_of_an_endless_output_is_kept(home: Path) -> None:
    ended = LocalTransport(home)(["head", "-c", str(OUTPUT_MAX * 3), "/dev/zero"], limit=20)
    assert (ended.code, len(ended.out)) == (0, OUTPUT_MAX)


def test_a_daemon_that_keeps_the_output_open_does_not_hold_us(home: Path) -> None:
    script = "import subprocess; subprocess.Popen(['sleep', '30'], start_new_session=True)"
    begun = time.monotonic()
    ended = LocalTransport(home)([sys.executable, "-c", script], limit=20)
    assert ended.code == 0
    assert time.monotonic() - begun < 15
    processes.kill_home(home)


def test_nobody_but_the_daemon_speaks_to_systemd(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    ended = LocalTransport(home)(["env"], limit=20)
    assert b"NOTIFY_SOCKET" not in ended.out
