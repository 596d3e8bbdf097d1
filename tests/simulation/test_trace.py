"""Traces: what cannot be read is refused with its line, what is open is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.simulation.plan import Kind
from orchestrator.simulation.trace import kind_of, load_trace, plan_of, read_trace

HEADER = "start_at,end_at,node,cause\n"
GOOD = (
    HEADER
    + "2024-05-01T10:00:00Z,2024-05-01T11:00:00Z,n1,GPU XID 79\n"
    + "2024-05-02T10:00:00+00:00,2024-05-02T10:30:00Z,n2,InfiniBand link down\n"
)


def test_a_good_trace_says_nothing() -> None:
    trace = read_trace(GOOD)
    assert trace.assumed == ()
    assert [(one.start, one.end, one.node) for one in trace.outages] == [
        (0.0, 3_600.0, "n1"),
        (86_400.0, 88_200.0, "n2"),
    ]
    assert trace.began_at is not None
    assert trace.began_at.isoformat() == "2024-05-01T10:00:00+00:00"


def test_every_bad_row_is_told_with_its_line() -> None:
    text = (
        HEADER
        + "soon,2024-05-01,n1,x\n"
        + "2024-05-01,2024-04-01,n1,x\n"
        + "2024-05-01,2024-05-02,,x\n"
        + "2024-05-01,2024-05-02\n"
        + "2024-05-01,never,n1,x\n"
        + "-5,,n1,x\n"
        + "nan,,n1,x\n"
        + "2024-05-01,2024-05-02,n1,fine\n"
    )
    with pytest.raises(UserError) as told:
        read_trace(text, "t.csv")
    assert str(told.value).splitlines() == [
        "t.csv:2: start_at: expected a time, such as 2024-05-01T10:00:00Z, got 'soon'",
        "t.csv:3: end_at: 2024-04-01 is before start_at, 2024-05-01",
        "t.csv:4: node: expected a name, got nothing",
        "t.csv:5: expected 4 columns, got 2",
        "t.csv:6: end_at: expected a time or nothing, got 'never'",
        "t.csv:7: start_at: expected a time, such as 2024-05-01T10:00:00Z, got '-5'",
        "t.csv:8: start_at: expected a time, such as 2024-05-01T10:00:00Z, got 'nan'",
    ]


def test_many_bad_rows_are_counted() -> None:
    with pytest.raises(UserError, match=r"and 80 more"):
        read_trace(HEADER + "x,,n,c\n" * 100)


@pytest.mark.parametrize("text", ["", "a,b,c\n1,2,3\n", "start_at,end_at,node\n1,2,n\n"])
def test_missing_columns_are_named(text: str) -> None:
    with pytest.raises(UserError, match="expected the columns start_at,end_at,node,cause"):
        read_trace(text)


def test_a_trace_without_failures_is_refused() -> None:
    with pytest.raises(UserError, match="no failure in it"):
        read_trace(HEADER + "\n\n")


def test_out_of_order_overlapping_open_and_empty_times_are_told() -> None:
    text = (
        "node,cause,start_at,end_at,rack\n"
        + "b,x,5000,6000,r1\n"
        + "a,x,1000,4000,r1\n"
        + "a,y,2000,9000,r1\n"
        + "c,z,3000,,r2\n"
        + "d,z,7000,7000,r2\n"
        + "d,z,9000000,9000600,r2\n"
    )
    trace = read_trace(text)
    assert [(one.node, one.start, one.end) for one in trace.outages] == [
        ("a", 0.0, 8_000.0),
        ("c", 2_000.0, None),
        ("b", 4_000.0, 5_000.0),
        ("d", 6_000.0, 6_060.0),
        ("d", 8_999_000.0, 8_999_600.0),
    ]
    assert trace.began_at is None
    told = "\n".join(trace.assumed)
    for words in (
        "columns rack are ignored",
        "out of order",
        "1 failures have no end_at",
        "1 failures overlap",
        "1 failures are shorter than a minute",
        "seconds since the trace's begin",
        "no failure for 104 days",
    ):
        assert words in told


def test_milliseconds_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("\ufeff" + HEADER + "1714557600000,1714561200000,n1,gpu\n", encoding="utf-8")
    trace = load_trace(file)
    assert trace.outages[0].end == 3_600.0
    assert trace.began_at is not None
    assert trace.began_at.year == 2024


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_trace(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("GPU XID 79", Kind.GPU),
        ("uncorrectable ECC", Kind.GPU),
        ("InfiniBand link down", Kind.LINK),
        ("NIC failure", Kind.LINK),
        ("software: job crashed", Kind.HANG),
        ("thermal throttling", Kind.DEGRADED),
        ("power supply", Kind.CRASH),
        ("", Kind.CRASH),
    ],
)
def test_causes_become_kinds(cause: str, kind: Kind) -> None:
    assert kind_of(cause) is kind


def test_the_gang_leaves_a_quarter_of_itself_to_spare() -> None:
    plan, assumed = plan_of(read_trace(GOOD), 10)
    assert plan.jobs[0].nodes == 8
    assert plan.clusters[0].nodes == 10
    assert "one gang of 8 of 10 nodes" in assumed[0]
    assert len({strike.target for strike in plan.strikes}) == 2
    more, told = plan_of(read_trace(GOOD), 1)
    assert more.clusters[0].nodes == 2
    assert "names 2 nodes" in told[0]
