"""Whatever the core holds comes back from its row as it was, and nothing else is written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.beliefs import NodeBelief
from orchestrator.core.nodes import (
    ClusterName,
    CohortName,
    Machine,
    MachineId,
    Node,
    NodeName,
    NodeState,
    ProviderName,
)
from orchestrator.core.observations import AgentSeen, NodeReached, Probed
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.ledger import codec
from orchestrator.runtime.reports import AgentReport, RankReport, RankState, Stage

NOW = datetime(2026, 11, 1, 12, 0, 0, 123_456, tzinfo=UTC)

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=4)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=3,
)
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(), max_size=6),  # surrogates and NUL among them
    int: st.integers(),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    datetime: st.datetimes(timezones=st.just(UTC)),
    timedelta: st.timedeltas(),
    type(None): st.none(),
    Any: PLAIN,
}


@cache
def some(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a type annotation of the core."""
    kind = getattr(kind, "__supertype__", kind)  # NewType
    origin, inside = get_origin(kind), get_args(kind)
    if kind in LEAVES:
        return LEAVES[kind]
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{one.name: some(hints[one.name]) for one in fields(kind)})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    if origin is tuple and inside[-1] is Ellipsis:
        return st.lists(some(inside[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(some, inside))
    if origin is frozenset:
        return st.frozensets(some(inside[0]), max_size=3)
    if origin in (dict, Mapping):
        return st.dictionaries(some(inside[0]), some(inside[1]), max_size=2)
    return st.one_of(*map(some, inside))  # a union


@pytest.mark.parametrize("kind", codec.CLASSES.values(), ids=list(codec.CLASSES))
def test_everything_comes_back_as_it_was(kind: Any) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(some(kind))
    def back_and_forth(thing: Any) -> None:
        body = codec.encode(thing)
        again = codec.decode(kind.__name__, body)
        assert again == thing
        assert type(again) is kind
        assert codec.encode(again) == body
        assert body.isascii()

    back_and_forth()


def report(**others: Any) -> AgentReport:
    plain: dict[str, Any] = dict.fromkeys(("pid", "port", "grant", "token"), 1)
    plain |= dict.fromkeys(("node", "job", "agent", "boot_id", "host"), "x")
    plain |= dict.fromkeys(("members", "peers_lost", "ranks", "notes"), ())
    plain |= {"protocol": 1, "attempt": 1, "at": 1.5, "started_at": 1.5, "stage": Stage.RUNNING}
    return AgentReport(**{**plain, "generation": None, "generation_seq": None, **others})


def test_a_loss_that_diverged_does_not_make_a_row_unreadable() -> None:
    rank = RankReport(0, 0, 1, RankState.RUNNING, loss=math.nan, tokens_per_second=math.inf)
    again = codec.decode(
        "AgentSeen", codec.encode(AgentSeen(NodeName("n"), NOW, report(ranks=(rank,))))
    )
    assert math.isnan(again.report.ranks[0].loss)
    assert again.report.ranks[0].tokens_per_second == math.inf
    cost = Finding(
        "c", "gpu0", Severity.OK, FaultClass.HARDWARE, "", Channel.NODE, NOW, cost=math.nan
    )
    probed = Probed(NodeName("n"), NOW, "b", (cost,), complete=True)
    assert math.isnan(codec.decode("Probed", codec.encode(probed)).findings[0].cost)


@pytest.mark.parametrize(
    "lie",
    [
        {"pid": "seven"},
        {"pid": 1.5},
        {"node": 7},
        {"members": (1, 2)},
        {"at": "noon"},
        {"at": None},
        {"limits": {"step": "long"}},
        {"ranks": ({"rank": 1},)},
        {"failure": {"deep": object()}},
        {"token": 10**5000},
    ],
    ids=lambda lie: "-".join(lie),
)
def test_a_report_with_fields_of_other_types_is_refused_before_it_is_written(
    lie: dict[str, Any],
) -> None:
    with pytest.raises(codec.UnwritableError, match="AgentSeen"):
        codec.encode(AgentSeen(NodeName("n"), NOW, report(**lie)))


def test_a_moment_keeps_its_microsecond_whatever_its_zone() -> None:
    elsewhere = NodeReached(NodeName("n"), NOW, "b")
    assert codec.decode("NodeReached", codec.encode(elsewhere)).at == NOW


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"node": "n"}', "\\ud800", "nul"])
def test_a_row_that_is_not_ours_says_so(body: str) -> None:
    with pytest.raises(codec.UnreadableRowError, match="NodeReached"):
        codec.decode("NodeReached", body)


def test_a_class_that_this_version_does_not_know_is_named() -> None:
    with pytest.raises(codec.UnreadableRowError, match="a Wish"):
        codec.decode("Wish", "{}")


def test_a_row_is_plain_json() -> None:
    thing = NodeReached(NodeName("n"), NOW, "b")
    assert json.loads(codec.encode(replace(thing, boot_id="c")))["boot_id"] == "c"


@pytest.mark.parametrize("name", ["NodeBelief", "Node"])
def test_a_row_from_before_detectors_were_labelled_is_read(name: str) -> None:
    later = {"firings", "accepted_at", "served", "swapped_at"}
    node = Node(
        NodeName("a"),
        ClusterName("c"),
        ProviderName("p"),
        CohortName("first"),
        Machine(MachineId("m")),
        NodeState.SPARE,
        NOW,
        "",
    )
    thing = NodeBelief(NodeName("a")) if name == "NodeBelief" else node
    row = json.loads(codec.encode(thing))
    old = {key: value for key, value in row.items() if key not in later}
    assert len(old) < len(row)
    assert codec.decode(name, json.dumps(old)) == thing
