"""The core's frozen objects <-> JSON, by the name of their class.

pydantic does the work from the type annotations; a class is found again by its name, so that a
member of a union is never guessed from its fields. What was written can be read again, exactly:
a thing whose fields are not of their declared types (a node says what it likes) is refused before
it is written, because a row that cannot be read would stop every later look. NaN and infinity (a
diverged loss) stay what they are, except inside fields of no declared type, where they become null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter

from orchestrator.core.beliefs import ClusterBelief, LinkBelief, NodeBelief, RegisterBelief
from orchestrator.core.cohorts import CohortBelief
from orchestrator.core.decisions import Decision, Incident
from orchestrator.core.detectors import Detector
from orchestrator.core.fleet import Used
from orchestrator.core.jobs import Attempt, Job, SeatGrant
from orchestrator.core.nodes import Node
from orchestrator.core.observations import Observation
from orchestrator.errors import PermanentError
from orchestrator.ledger.changes import OrderBook

CLASSES: dict[str, type[Any]] = {
    one.__name__: one
    for one in (
        *get_args(Observation),
        *get_args(Decision),
        Attempt,
        ClusterBelief,
        CohortBelief,
        Incident,
        Job,
        Node,
        Detector,
        LinkBelief,
        NodeBelief,
        OrderBook,
        RegisterBelief,
        SeatGrant,
        Used,
    )
}


ERROR_MAX = 400  #: characters of pydantic's explanations that are told
SURROGATE = "\\ud"  #: how json.dumps begins the escape of half a character


class UnwritableError(PermanentError):
    """A thing whose fields are not of their declared types: it was made of untrusted words."""


class UnreadableRowError(PermanentError):
    """A row of the ledger is not what this version writes."""


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(CLASSES[name])


def encode(thing: Any) -> str:
    """Return the JSON of one of the classes above; raises `UnwritableError`."""
    name = type(thing).__name__
    try:
        body = json.dumps(_adapter(name).dump_python(thing, mode="json", warnings="error"))
        _read(name, body)  # pydantic writes None anywhere, and reads it only where it may stand
    except (ValueError, TypeError, RecursionError) as error:  # pydantic's are ValueErrors
        raise UnwritableError(f"not a {name} that can be kept: {str(error)[:ERROR_MAX]}") from error
    return body


def sift(
    seen: Sequence[Observation],
) -> tuple[list[tuple[Observation, str]], list[tuple[Observation, str]]]:
    """Return (observation, JSON) of those that can be kept, (observation, why not) of the rest."""
    kept: list[tuple[Observation, str]] = []
    refused: list[tuple[Observation, str]] = []
    for one in seen:
        try:
            kept.append((one, encode(one)))
        except UnwritableError as error:
            refused.append((one, str(error)))
    return kept, refused


def decode(name: str, body: str) -> Any:
    """Return the object of the class called `name`; raises `UnreadableRowError`."""
    if name not in CLASSES:
        raise UnreadableRowError(f"the ledger holds a {name}, which this version does not know")
    try:
        return _read(name, body)
    except ValueError as error:
        raise UnreadableRowError(
            f"the ledger holds a {name} that cannot be read: {str(error)[:ERROR_MAX]}"
        ) from error


def _read(name: str, body: str) -> Any:
    if SURROGATE in body:  # half a character: Python's parser reads it, pydantic's does not
        return _adapter(name).validate_python(json.loads(body))
    return _adapter(name).validate_json(body)
