from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.runtime import stacks
from orchestrator.runtime.stacks import Dump
from tests.runtime.trees import wait_for

SLEEPER = """
import time
def waits_for_its_peer():
    print("ready", flush=True)
    time.sleep(300)
waits_for_its_peer()
"""


@pytest.fixture
def sleeper() -> object:
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def finished(dump: Dump) -> str:
    wait_for(lambda: dump.done(time.monotonic()))
    return dump.text()


@pytest.mark.skipif(stacks.find_py_spy() is None, reason="py-spy is not installed")
def test_a_dump_names_the_function_that_waits(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    text = finished(Dump(sleeper.pid, tmp_path / "dump", time.monotonic()))
    if "waits_for_its_peer" not in text:
        pytest.skip(f"ptrace is refused here: {text[:200]}")
    assert "waits_for_its_peer" in (tmp_path / "dump").read_text()


def test_without_py_spy_proc_tells_what_it_can_and_why(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    text = finished(Dump(sleeper.pid, tmp_path / "dump", time.monotonic()))
    assert text.startswith("py-spy is not installed")
    assert "State:" in text
    assert "wchan:" in text


def _pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "py-spy"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_a_refused_ptrace_is_told_with_its_reason(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(tmp_path, monkeypatch, "echo 'Error: Permission denied' >&2; exit 1")
    text = finished(Dump(sleeper.pid, tmp_path / "dump", time.monotonic()))
    assert text.startswith("py-spy: Error: Permission denied")
    assert "State:" in text


def test_a_dump_that_hangs_is_ended_at_its_limit(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(tmp_path, monkeypatch, "exec sleep 300")
    dump = Dump(sleeper.pid, tmp_path / "dump", now=100.0)
    assert not dump.done(104.9)
    assert dump.done(105.1)
    assert "did not end within 5 s" in dump.text()


def test_a_process_that_is_gone_is_no_error(tmp_path: Path) -> None:
    text = finished(Dump(2**22 + 1, tmp_path / "dump", time.monotonic()))
    assert "wchan:\tunknown" in text
