"""`holdfast diagnose`: a file or stdin in, what failed out."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from orchestrator.cli import main

LOG = b"ok\nRuntimeError: CUDA error: uncorrectable ECC error encountered\n\xff\xfe\n"


def test_a_file_is_read_and_told_as_json(tmp_path: Path) -> None:
    (tmp_path / "rank.log").write_bytes(LOG)
    done = CliRunner().invoke(main, ["diagnose", str(tmp_path / "rank.log"), "-o", "json"])
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (found["kind"], found["family"]) == ("gpu_memory_ecc", "gpu-hardware")
    assert (found["node_at_fault"], found["evidence"]) == (True, [2])


def test_stdin_is_read_and_told_as_a_table() -> None:
    done = CliRunner().invoke(main, ["diagnose", "-"], input=LOG)
    assert done.exit_code == 0
    assert "gpu_memory_ecc" in done.stdout


def test_a_file_that_is_not_there_is_said() -> None:
    done = CliRunner().invoke(main, ["diagnose", "/nowhere/at/all"])
    assert done.exit_code == 2
    assert "/nowhere/at/all" in done.stderr
