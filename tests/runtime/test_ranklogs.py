"""What a node says about logs may be anything."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime import ranklogs
from orchestrator.runtime.ranklogs import Piece

GOOD = {"generation": 1, "rank": 0, "size": 3, "at": 0, "data": "YWJj"}


def test_a_request_survives_its_journey() -> None:
    assert ranklogs.asked(ranklogs.request(None)) is None
    assert ranklogs.asked(ranklogs.request({(1, 2): -5})) == {(1, 2): -5}


@pytest.mark.parametrize("body", [None, [], {}, {"wanted": 3}, {"wanted": [[1, 2]]}])
def test_what_is_no_request_is_refused(body: Any) -> None:
    with pytest.raises(PermanentError, match="no request"):
        ranklogs.asked(body)


def test_an_answer_is_read() -> None:
    assert ranklogs.heard({"logs": [GOOD]}) == [Piece(1, 0, 3, 0, b"abc")]


@pytest.mark.parametrize(
    "change",
    [{"rank": -1}, {"rank": True}, {"size": 1.5}, {"at": "0"}, {"data": "?"}, {"data": None}],
)
def test_what_is_no_answer_is_an_error_that_may_pass(change: dict[str, Any]) -> None:
    with pytest.raises(TransientError, match="no answer"):
        ranklogs.heard({"logs": [{**GOOD, **change}]})


@pytest.mark.parametrize("body", [None, {}, {"logs": 3}, {"logs": [3]}, {"logs": [{}]}])
def test_neither_is_any_other_thing(body: Any) -> None:
    with pytest.raises(TransientError, match="no answer"):
        ranklogs.heard(body)
