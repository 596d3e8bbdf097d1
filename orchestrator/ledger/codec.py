"""The core's frozen objects <-> JSON, by the name of their class.

pydantic does the work from the type annotations; a class is found again by its name, so that a
member of a union is never guessed from its fields.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from orchestrator.core.beliefs import ClusterBelief, NodeBelief, RegisterBelief
from orchestrator.core.decisions import Decision, Incident
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
        Incident,
        Job,
        Node,
        NodeBelief,
        OrderBook,
        RegisterBelief,
        SeatGrant,
        Used,
    )
}


class UnreadableRowError(PermanentError):
    """A row of the ledger is not what this version writes."""


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(CLASSES[name])


def encode(thing: Any) -> str:
    """Return the JSON of one of the classes above."""
    return _adapter(type(thing).__name__).dump_json(thing).decode()


def decode(name: str, body: str) -> Any:
    """Return the object of the class called `name`; raises `UnreadableRowError`."""
    if name not in CLASSES:
        raise UnreadableRowError(f"the ledger holds a {name}, which this version does not know")
    try:
        return _adapter(name).validate_json(body)
    except ValidationError as error:
        raise UnreadableRowError(
            f"the ledger holds a {name} that cannot be read: {error}"
        ) from error
