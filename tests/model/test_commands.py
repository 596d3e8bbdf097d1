"""`python -m model`: its commands from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.__main__ import COMMANDS, main
from model.config import PRESETS
from model.data import shards


def test_describe_says_what_every_preset_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)["presets"]
    assert set(said) == set(PRESETS)
    for one in said.values():
        assert {"parameters", "flops_per_token", "checkpoint_bytes"} <= set(one)
    assert said["edge-7b"]["parameters"] == 7_068_815_360
    assert main(["describe"]) == 0
    assert "flash-21b" in capsys.readouterr().out


def test_without_a_command_it_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in COMMANDS)
    assert main(["--help"]) == 0


def test_text_files_become_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    for number in range(5):
        words = " ".join(f"Word {number * 50 + n} is about something else." for n in range(20))
        (source / f"{number}.txt").write_text(words)
    (source / "copy.txt").write_text((source / "0.txt").read_text())
    (source / "odd.txt").write_bytes(b"\xff\xfe\x00")
    assert main(["shards", "build", str(source), str(tmp_path / "out")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["samples"] == said["kept"] == 5
    assert said["dropped"] == {"unreadable": 1, "duplicate": 1}
    (tmp_path / "out" / shards.INDEX).unlink()
    assert main(["shards", "index", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out) == {"samples": 5, "damaged": []}


def test_a_folder_without_texts_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shards", "build", str(tmp_path), str(tmp_path / "out")]) == 2
    assert f"{tmp_path}: no files *.txt" in capsys.readouterr().err
