from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.runtime import exits
from orchestrator.runtime.signs import FileSigns, OutputSteps


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("ValueError: bad batch 17", "ValueError: bad batch N"),
        ("<Tensor at 0x7f3a2b> is odd", "<Tensor at ADDRESS> is odd"),
        ("2026-11-23T12:00:01.5Z  out of\tmemory", "TIME out of memory"),
        ("[2026-11-23 12:00:01,123] lost", "[TIME] lost"),
        ("x" * 500, "x" * 200),
    ],
)
def test_what_differs_between_two_equal_failures_is_left_out(line: str, same: str) -> None:
    assert exits.normalised(line) == same


def test_an_exit_is_told_by_its_code_and_the_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("step 1\nTraceback:\nRuntimeError: shape 4\n\n  \n")
    assert exits.fingerprint(1, log) == "exit 1: RuntimeError: shape N"
    assert exits.fingerprint(-9, log) == "signal 9"
    assert exits.fingerprint(3, tmp_path / "absent") == "exit 3"


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff" * 1_000_000 + b"\nthe end")
    assert exits.last_line(log) == "the end"


def test_steps_are_found_in_output_as_it_grows(tmp_path: Path) -> None:
    log = tmp_path / "log"
    signs = OutputSteps(r"step (?P<step>\d+)", log)
    assert signs.look() == 0
    log.write_text("hello\nstep 4 loss 1\nst")
    assert (signs.look(), signs.last) == (1, 4)
    with log.open("a") as file:
        file.write("ep 5\nstep 6\n")
    assert (signs.look(), signs.last) == (2, 6)
    assert signs.look() == 0


def test_the_first_group_or_none_will_do(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("it=12\ntick\nit=x\n")
    first, bare = OutputSteps(r"it=(\w+)", log), OutputSteps("tick", log)
    assert (first.look(), first.last) == (2, 12)
    assert (bare.look(), bare.last) == (1, None)


def test_of_a_flood_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"step {n}\n" for n in range(200_000)))
    signs = OutputSteps(r"step (\d+)", log)
    assert signs.look() < 10_000
    assert signs.last == 199_999


def test_files_that_change_or_appear_are_progress(tmp_path: Path) -> None:
    signs = FileSigns("out/*.bin", str(tmp_path))
    absolute = FileSigns(f"{tmp_path}/out/*.bin", "/")
    assert not signs.look()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.bin").write_text("1")
    assert signs.look()
    assert absolute.look()
    assert not signs.look()
    (tmp_path / "out" / "a.bin").write_text("22")
    assert signs.look()
    (tmp_path / "out" / "other.txt").write_text("1")
    assert not signs.look()
