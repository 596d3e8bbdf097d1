from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtime import mailbox
from orchestrator.runtime.heartbeats import Heart
from orchestrator.runtime.mailbox import Beat, Event, Journal, Mailbox


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Mailbox]:
    box = Mailbox(tmp_path / "heartbeats")
    yield box
    box.close()


def write(box: Mailbox, data: bytes) -> None:
    os.write(box.fileno(), data)


def test_what_a_rank_says_is_heard(box: Mailbox, tmp_path: Path) -> None:
    heart = Heart(str(tmp_path / "heartbeats"), 3)
    heart.beat()
    heart.beat(7, loss=1.5, tokens_per_second=99.0, data_wait=0.25)
    took = {"stall_seconds": 0.12345, "lag_seconds": 2.0}
    heart.event("commit", step=7, seq=12, text="done", took=took)
    heart.beat(8, loss=float("nan"))
    said = box.read()
    assert said == [
        Beat(3, "init", None, pid=os.getpid()),
        Beat(3, "step", 7, 1.5, 99.0, 0.25, pid=os.getpid()),
        Event(3, "commit", 7, 12, "done", os.getpid(), stall_seconds=0.1235, lag_seconds=2.0),
        Beat(3, "step", 8, pid=os.getpid()),
    ]
    assert box.ignored == 0


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b'{"rank": "0", "phase": "step"}',
        b'{"rank": -1, "phase": "step"}',
        b'{"rank": true, "phase": "step"}',
        b'{"rank": 0}',
        b'{"rank": 0, "phase": ""}',
        b'{"rank": 0, "phase": 5}',
        b'{"rank": 0, "event": "explode"}',
        b'{"rank": 0, "event": []}',
        b'{"rank": 0, "phase": "' + b"x" * 600 + b'"}',
        b"\xff\xfe{",
    ],
)
def test_a_strange_line_is_counted_and_dropped(box: Mailbox, line: bytes) -> None:
    write(box, line + b'\n{"rank": 0, "phase": "step", "step": 1}\n')
    assert box.read() == [Beat(0, "step", 1)]
    assert box.ignored == (1 if line else 0)


@pytest.mark.parametrize("loss", ["NaN", "1e999", '"low"', "true", "1" + "0" * 400])
def test_a_loss_that_is_no_number_is_no_loss(box: Mailbox, loss: str) -> None:
    write(box, b'{"rank": 0, "phase": "step", "step": 1, "loss": %s}\n' % loss.encode())
    assert box.read() == [Beat(0, "step", 1)]


def test_a_line_without_end_costs_no_memory(box: Mailbox) -> None:
    for _ in range(20):
        write(box, b"x" * 60_000)
        assert box.read() == []
    assert len(box._rest) <= mailbox.LINE_MAX + 1
    write(box, b'\n{"rank": 0, "phase": "step", "step": 1}\n')
    assert box.read() == [Beat(0, "step", 1)]
    assert box.ignored == 1


@given(st.binary(max_size=600))
def test_no_line_is_an_error(line: bytes) -> None:
    mailbox.parse(line)


@given(
    st.dictionaries(
        st.sampled_from(["rank", "phase", "step", "loss", "event", "seq", "text", "pid"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
    )
)
def test_no_json_is_an_error(body: dict[str, Any]) -> None:
    mailbox.parse(json.dumps(body).encode())


def test_what_was_said_by_ranks_that_are_gone_is_thrown_away(box: Mailbox) -> None:
    write(box, b'{"rank": 0, "phase": "step", "step": 1}\n{"rank"')
    box.empty()
    assert box.read() == []


def test_a_file_in_the_place_of_the_fifo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "heartbeats").write_text("a stranger's")
    box = Mailbox(tmp_path / "heartbeats")
    assert box.read() == []
    box.close()


def test_the_journal_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "JOURNAL_MAX", 1_000)
    journal = Journal(tmp_path / "progress.jsonl")
    for step in range(500):
        journal.write([{"step": step}])
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 1_100


def test_a_journal_that_cannot_be_written_costs_its_lines_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "absent" / "progress.jsonl")
    journal.write([{"step": 1}, {"step": 2}])
    assert journal.lost == 2
