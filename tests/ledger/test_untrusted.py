"""What a node says is recorded, or refused and told; it never stops what the others said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.assess import assess
from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import AgentSeen, NodeUnreached, Observation
from orchestrator.ledger import Event, Ledger, open_ledger
from orchestrator.runtime.reports import AgentReport, Note, Stage

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
GOOD, BAD = NodeName("good"), NodeName("bad")
REPORT = AgentReport(
    protocol=1,
    node=BAD,
    job="train",
    attempt=1,
    agent="life-1",
    boot_id="b",
    pid=1,
    host="127.0.0.1",
    port=1,
    at=1.0,
    started_at=1.0,
    stage=Stage.RUNNING,
    grant=1,
    token=1,
    generation=None,
    generation_seq=None,
    members=(),
    peers_lost=(),
    ranks=(),
    notes=(),
)


@pytest.fixture
def ledger(stored_url: str) -> Iterator[Ledger]:
    opened = open_ledger(stored_url)
    opened.acquire("me", timedelta(hours=1), NOW)
    yield opened
    opened.close()


def record(ledger: Ledger, **said: Any) -> None:
    seen: list[Observation] = [
        AgentSeen(BAD, NOW, replace(REPORT, **said)),
        NodeUnreached(GOOD, NOW, "no route"),
    ]
    ledger.record(1, seen, NOW, assess)


def told(ledger: Ledger, kind: str) -> Event:
    (event,) = [one for one in ledger.story(None) if one.kind == kind]
    return event


@pytest.mark.parametrize("said", [{"pid": "seven"}, {"at": None}, {"ranks": ({},)}, {"job": 5}])
def test_a_report_of_other_types_is_left_out_and_told_once_a_day(
    ledger: Ledger, said: dict[str, Any]
) -> None:
    for _ in range(2):
        record(ledger, **said)
    beliefs = ledger.snapshot(NOW, ()).beliefs
    assert beliefs.nodes[GOOD].unreached_since == NOW
    assert BAD not in beliefs.nodes
    refused = told(ledger, "observation-refused")
    assert refused.subjects == (BAD,)
    assert "not believed" in refused.text


@pytest.mark.parametrize(
    "note",
    [
        Note(1, 1.0, "hang", "a NUL \0, half a character \ud800", {"\0": "\ud800"}),
        Note(1, 1.0, "hang\0", "loss is not a number", {"loss": math.nan}),
        Note(1, math.nan, "hang", "no such moment"),
        Note(1, 1e300, "hang", "no such moment"),
        Note(10**30, 1.0, "hang", "x" * 100_000, {"deep": [[[{}]]]}),
    ],
    ids=["nul", "nan", "no-moment", "far", "long"],
)
def test_a_strange_note_becomes_an_event_and_stops_nothing(ledger: Ledger, note: Note) -> None:
    for _ in range(2):
        record(ledger, agent="a" * 5_000, notes=(note,))
    (event,) = [one for one in ledger.story(BAD) if one.actor == "agent bad"]
    assert event.kind.startswith("hang")
    assert event.subjects == (BAD, "train", "train/1")
    assert ledger.snapshot(NOW, ()).beliefs.nodes[GOOD].unreached_since == NOW


def test_a_long_name_is_a_subject_that_is_cut_and_found_again(ledger: Ledger) -> None:
    name = "x" * 5_000
    ledger.event(1, Event(NOW, "k", (name, name + "y"), "told"), NOW)
    assert [one.text for one in ledger.story(name)] == ["told"]


def test_a_node_speaks_for_itself_only(ledger: Ledger) -> None:
    record(ledger, node="somebody-else", notes=(Note(1, 1.0, "hang", "him!"),))
    assert told(ledger, "hang").actor == "agent bad"
    assert ledger.story("somebody-else") == []
