"""Failures that really happened, from a CSV, played to a simulated fleet.

Columns `start_at,end_at,node,cause`. A row that cannot be read is refused with its line; what can
be read but leaves something open (no end, out of order, overlapping, gaps) is taken, and it is said
what was assumed. Times are ISO 8601, seconds since the epoch, or seconds since the trace's begin.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.simulation.agenda import DAY, HOUR, MINUTE
from orchestrator.simulation.plan import ClusterPlan, CohortPlan, JobPlan, Kind, Plan, Strike
from orchestrator.simulation.table4 import POOL

COLUMNS = ("start_at", "end_at", "node", "cause")
SIZE_MAX = 200_000_000  #: bytes
MISTAKES_MAX = 20  #: told at once
LEAD = 2 * HOUR  #: simulated before the first failure, so that the gang is at work by then
GAP = 28 * DAY  #: a longer time without a failure is mentioned
SHORTEST = MINUTE
EPOCH_MIN = 1e8  #: smaller numbers are seconds since the trace's begin
MILLIS_MIN = 1e11  #: larger numbers are milliseconds since the epoch

#: Words in a cause, and what such a failure does to a node; the first that fits counts.
WORDS: tuple[tuple[str, Kind], ...] = (
    (r"slow|straggl|throttl|degrad|thermal", Kind.DEGRADED),
    (r"hang|stuck|timeout|time-out|software|user|segfault|oom|job|framework", Kind.HANG),
    (r"net|nic|link|infiniband|\bib\b|ethernet|switch|cable|rdma|roce", Kind.LINK),
    (r"gpu|xid|ecc|nvlink|hbm|cuda|sxm|vram", Kind.GPU),
)


@dataclass(frozen=True, slots=True)
class Outage:
    """One failure of one node. Seconds since the trace's first failure."""

    start: float
    end: float | None
    node: str
    cause: str


@dataclass(frozen=True, slots=True)
class Trace:
    """All failures in order, and what was assumed to read them."""

    outages: tuple[Outage, ...]
    began_at: datetime | None  #: of the first failure; None: the trace does not say
    assumed: tuple[str, ...]

    @property
    def span(self) -> float:
        """Seconds from the first failure to the last end."""
        return max((one.end or one.start for one in self.outages), default=0.0)


def load_trace(path: Path) -> Trace:
    """Read a trace file. Raises `UserError` that names every bad line (20 at most)."""
    try:
        if path.stat().st_size > SIZE_MAX:
            raise UserError(f"{path}: larger than {SIZE_MAX} bytes; cut it into pieces")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return read_trace(text, str(path))


def read_trace(text: str, name: str = "trace") -> Trace:
    """Read a trace; `name` stands before each mistake. Raises `UserError`."""
    rows, mistakes, assumed = [], [], []
    reader = csv.reader(io.StringIO(text))
    header = [cell.strip().lower() for cell in next(reader, [])]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        expected = ",".join(COLUMNS)
        raise UserError(f"{name}:1: expected the columns {expected}; {missing[0]} is missing")
    places = [header.index(column) for column in COLUMNS]
    extra = [column for column in header if column not in COLUMNS]
    if extra:
        assumed.append(f"columns {', '.join(extra)} are ignored")
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            found = _row(cells, places, len(header))
            if isinstance(found, str):
                mistakes.append(f"{name}:{reader.line_num}: {found}")
            else:
                rows.append(found)
    except csv.Error as error:
        mistakes.append(f"{name}:{reader.line_num}: {error}")
    if mistakes:
        more = len(mistakes) - MISTAKES_MAX
        lines = mistakes[:MISTAKES_MAX] + ([f"... and {more} more"] if more > 0 else [])
        raise UserError("\n".join(lines))
    if not rows:
        raise UserError(f"{name}: no failure in it")
    return _ordered(rows, assumed)


Row = tuple[float, float | None, str, str]


def _row(cells: list[str], places: list[int], width: int) -> Row | str:
    """Return one row, or what is wrong with it."""
    if len(cells) != width:
        return f"expected {width} columns, got {len(cells)}"
    start, end, node, cause = (cells[place].strip() for place in places)
    if not node:
        return "node: expected a name, got nothing"
    began = _second(start)
    if began is None:
        return f"start_at: expected a time, such as 2024-05-01T10:00:00Z, got {start[:40]!r}"
    ended = _second(end) if end else None
    if end and ended is None:
        return f"end_at: expected a time or nothing, got {end[:40]!r}"
    if ended is not None and ended < began:
        return f"end_at: {end[:40]} is before start_at, {start[:40]}"
    return (began, ended, node, cause)


def _second(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(number) or number < 0:
            return None
        return number / 1_000.0 if number >= MILLIS_MIN else number
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _ordered(rows: list[Row], assumed: list[str]) -> Trace:
    """Bring the rows in order, one node's failures one after the other; say what was assumed."""
    ordered = sorted(rows, key=lambda row: (row[0], row[2]))
    if ordered != rows:
        assumed.append("rows were out of order: they are taken by start_at")
    open_ = sum(row[1] is None for row in ordered)
    if open_:
        assumed.append(f"{open_} failures have no end_at: how long a repair took is drawn")
    first = ordered[0][0]
    whole = first >= EPOCH_MIN
    if not whole:
        assumed.append("times are small numbers: taken as seconds since the trace's begin")
    merged, joined = _merged(ordered)
    if joined:
        assumed.append(f"{joined} failures overlap another of their node: taken as one with it")
    short = sum(one[1] is not None and one[1] - one[0] < SHORTEST for one in merged)
    if short:
        assumed.append(f"{short} failures are shorter than a minute: taken as one minute")
    outages = tuple(
        Outage(
            start - first,
            None if end is None else max(end, start + SHORTEST) - first,
            node,
            cause,
        )
        for start, end, node, cause in merged
    )
    assumed += _gaps(outages)
    began_at = datetime.fromtimestamp(first, UTC) if whole else None
    return Trace(outages, began_at, tuple(assumed))


def _merged(ordered: Iterable[Row]) -> tuple[list[Row], int]:
    last: dict[str, int] = {}
    merged: list[Row] = []
    joined = 0
    for row in ordered:
        start, end, node, _ = row
        at = last.get(node)
        if at is None or not _overlap(merged[at], start):
            last[node] = len(merged)
            merged.append(row)
            continue
        before = merged[at]
        ends = [one for one in (before[1], end) if one is not None]
        merged[at] = (before[0], max(ends, default=None), node, before[3])
        joined += 1
    return merged, joined


def _overlap(before: Row, start: float) -> bool:
    return start == before[0] or (before[1] is not None and start < before[1])


def _gaps(outages: tuple[Outage, ...]) -> list[str]:
    told = []
    for before, after in pairwise(outages):
        if after.start - before.start > GAP:
            days = (after.start - before.start) / DAY
            told.append(f"no failure for {days:.0f} days: taken as a time without failures")
    return told[:3]


def kind_of(cause: str) -> Kind:
    """Say what a failure of this cause does to its node; what nothing is said of is a crash."""
    for words, kind in WORDS:
        if re.search(words, cause, re.IGNORECASE):
            return kind
    return Kind.CRASH


def plan_of(trace: Trace, nodes: int, days: float | None = None) -> tuple[Plan, tuple[str, ...]]:
    """Return the world that a trace is played to, and what had to be assumed for it.

    One cluster of `nodes` nodes; its gang is as large as leaves a quarter of itself to spare. The
    nodes of the trace are spread evenly over the cluster, in the order in which they fail first.
    """
    assumed = []
    named = list(dict.fromkeys(one.node for one in trace.outages))
    if len(named) > nodes:
        assumed.append(f"the trace names {len(named)} nodes: as many are simulated, not {nodes}")
        nodes = len(named)
    gang = max(1, int(nodes / (1.0 + POOL)))
    assumed.append(f"one gang of {gang} of {nodes} nodes; the others stand by or are spare")
    place = {
        name: f"trace-{1 + number * nodes // len(named):03}" for number, name in enumerate(named)
    }
    strikes = tuple(
        Strike(
            at=LEAD + one.start,
            kind=kind_of(one.cause),
            target=place[one.node],
            end_at=None if one.end is None else LEAD + one.end,
        )
        for one in trace.outages
    )
    cluster = ClusterPlan("trace", "trace", (CohortPlan("1", nodes, rate=0.0),))
    span = (LEAD + trace.span) / DAY + 1.0
    job = JobPlan("train", gang)
    plan = Plan((cluster,), (job,), days=span if days is None else days, strikes=strikes)
    return plan, tuple(assumed)
