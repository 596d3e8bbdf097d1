"""Grants: which nodes an attempt may use. The controller writes them, agents live inside them.

An agent keeps the highest grant it accepted on disk and joins no generation under a lower one.
Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.errors import PermanentError
from orchestrator.runtime.lineage import Member

VERSION = 1  #: of the wire format


class BadGrantError(PermanentError):
    """A grant that this version cannot read."""


@dataclass(frozen=True)
class Grant:
    """The nodes one attempt may use, and how far its gang may go without asking.

    `nodes` are the seats the controller wants in use, `standbys` may be taken without asking;
    the gang has between `nodes_min` and `nodes_max` members. `generations_max` bounds the
    generations of the whole attempt, `budget` those of one cause (keys are `Cause` values; a
    cause that is absent is bounded by `generations_max` alone).
    """

    job: str
    attempt: int
    number: int  #: 1, 2, ... within the attempt
    token: int  #: the controller's lease token when it was issued
    nodes: tuple[Member, ...]
    standbys: tuple[Member, ...]
    nodes_min: int
    nodes_max: int
    generations_max: int
    budget: Mapping[str, int] = field(default_factory=dict)
    resume_max: int | None = None  #: seq of the newest commit that may be resumed from, if bounded
    abandoned: int | None = None  #: seq of the generation whose members are given up, if one is

    @cached_property
    def seats(self) -> tuple[Member, ...]:
        """Every node the attempt may use, wanted ones first."""
        return (*self.nodes, *self.standbys)

    def gives_up(self, seq: int) -> bool:
        """Say whether others may go on without the members of this generation.

        Nodes that do not hear them cannot know that they are lost: another part of the network may
        hear them well. The controller says so when it hears none of them either.
        """
        return self.abandoned is not None and self.abandoned >= seq

    def seat(self, node: str) -> Member | None:
        """Return this node's seat, or None if it has none."""
        return next((seat for seat in self.seats if seat.node == node), None)


def encode(grant: Grant) -> dict[str, Any]:
    """Return the grant as plain JSON types."""
    body: dict[str, Any] = {"version": VERSION, **asdict(grant)}
    if grant.abandoned is None:
        del body["abandoned"]  # agents of the version before read every other grant
    return {key: list(value) if isinstance(value, tuple) else value for key, value in body.items()}


def decode(body: Mapping[str, Any]) -> Grant:
    """Read a grant; raises `BadGrantError` if it is not one of a known version."""
    try:
        fields = dict(body)
        version = fields.pop("version")
        if version != VERSION:
            raise BadGrantError(f"grant of version {version}; this agent reads {VERSION}")
        for key in ("nodes", "standbys"):
            fields[key] = tuple(Member(**seat) for seat in fields[key])
        return Grant(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadGrantError(f"grant cannot be read: {error}") from error
