"""Which GPUs a job held when: from the moves of its nodes, and from grants where one is missing.

Pure; part of `bookkeeping`. A move says from which state to which, in which seat, so that a missing
one shows: the next does not begin where the last ended. When the change happened is then guessed
from the grants (the first that names the node, or leaves it out) and the attempt's end; what rests
on that is *unsure*. A ledger of an older version tells no seats, and all is taken from its grants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.accounts import Held
from orchestrator.core.jobs import Attempt, AttemptState, SeatGrant
from orchestrator.core.nodes import SEATED, JobName, Node, NodeName, NodeState
from orchestrator.ledger.api import Event

GPUS_MAX = 1_024  #: of one node; more is no number of GPUs
Place = tuple[int, NodeState]  #: (attempt, state) of a seated node


@dataclass(frozen=True, slots=True)
class Worth:
    """What a node counts for."""

    gpus: int = 1
    price: float | None = None  #: US dollars per GPU-hour
    counted: bool = False  #: False: it has no accelerators, and counts as one GPU


@dataclass(frozen=True, slots=True)
class Seat:
    """A stretch of time in which a node was seated in one state; `until` None: it still is."""

    node: NodeName
    since: datetime
    until: datetime | None
    state: NodeState
    unsure: bool = False  #: that it was seated so is a guess


@dataclass(frozen=True, slots=True)
class Move:
    """One move of one node into, within or out of a seat of the job."""

    at: datetime
    number: int
    was: Place | None
    now: Place | None
    worth: Worth


@dataclass(slots=True)
class _Stay:
    """A node in its seat while its story is read."""

    place: Place
    since: datetime
    sure: datetime  #: last moment at which something showed it here
    named: bool = False  #: by a grant
    gone: datetime | None = None  #: first moment after that which speaks against it


@dataclass
class Seats:
    """The seats of one job. Moves are taken in any order; one taken twice counts once."""

    job: JobName
    attempts: Iterable[Attempt]
    grants: Mapping[int, Iterable[SeatGrant]]
    nodes: Mapping[NodeName, Node]
    _moves: defaultdict[NodeName, dict[int, Move]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def take(self, event: Event) -> None:
        """Take a `MoveNode` or a `Renew` in; one without a seat of this job says nothing."""
        data = event.data
        attempt, names = data.get("attempt"), (data.get("start"), data.get("end"))
        if data.get("job") != self.job or not isinstance(attempt, int) or not event.subjects:
            return
        try:
            start, end = (NodeState(str(name)) for name in names)
        except ValueError:
            return
        was, now = ((attempt, one) if one in SEATED else None for one in (start, end))
        worth = _worth(data.get("gpus"), data.get("price_per_hour"))
        move = Move(event.at, event.number, was, now, worth)
        self._moves[NodeName(event.subjects[0])][event.number] = move

    def worth(self, node: NodeName) -> Worth:
        """Return what a node counts for: as it was told last, else as it is now."""
        moves = self._moves.get(node)
        if moves:
            return moves[max(moves)].worth
        known = self.nodes.get(node)
        if known is None:
            return Worth()
        return _worth(known.machine.accelerators, known.machine.price_per_hour)

    def all(self) -> list[Seat]:
        """Return every seat, node by node, each node's in the order of time."""
        named = {name for some in self.grants.values() for one in some for name in one.seats}
        return [seat for node in sorted({*self._moves, *named}) for seat in self._of(node)]

    # --- one node ---------------------------------------------------------------------------------

    def _of(self, node: NodeName) -> Iterator[Seat]:
        known = self._moves.get(node, {})
        moves = [known[number] for number in sorted(known)]
        at_once = {move.at for move in moves}
        told: list[tuple[datetime, int, int, Move | _Hint]] = [
            *((move.at, 0, move.number, move) for move in moves),
            *((at, 1, 0, hint) for at, hint in self._hints(node)),
        ]
        stay: _Stay | None = None
        for at, _, _, said in sorted(told, key=lambda one: one[:3]):
            if isinstance(said, Move):
                if stay is not None:
                    yield from self._left(node, stay, at, told=said.was == stay.place)
                stay = None if said.now is None else _Stay(said.now, at, at)
            elif stay is None:
                if said.state is not None and at not in at_once:
                    stay = _Stay((said.attempt, said.state), at, at, named=True)
            elif stay.place[0] == said.attempt:
                _weigh(stay, at, said)
        if stay is not None:
            yield from self._last(node, stay)

    def _hints(self, node: NodeName) -> Iterator[tuple[datetime, _Hint]]:
        """Yield what grants and ends of attempts say of a node."""
        for number, grants in self.grants.items():
            for one in grants:
                state = NodeState.STANDBY if node in one.standbys else NodeState.IN_USE
                yield one.issued_at, _Hint(number, state if node in one.seats else None)
        for attempt in self.attempts:
            if attempt.state is AttemptState.CLOSED:
                yield attempt.since, _Hint(attempt.number, None, over=True)

    def _left(self, node: NodeName, stay: _Stay, at: datetime, *, told: bool) -> Iterator[Seat]:
        """Yield the seat that ends here; if nobody told how, it ended at the best guess."""
        state = stay.place[1]
        if told:
            until = sure = at
        else:
            quick = stay.since if state is NodeState.DRAINING else at
            until = min(at, max(stay.sure, stay.gone or quick))
            sure = min(stay.sure, until)
        if sure > stay.since:
            yield Seat(node, stay.since, sure, state)
        if until > sure:
            yield Seat(node, sure, until, state, unsure=True)

    def _last(self, node: NodeName, stay: _Stay) -> Iterator[Seat]:
        """Yield the seat that is held now, or whose end was not told."""
        known = self.nodes.get(node)
        here = known is not None and known.job == self.job and known.attempt == stay.place[0]
        if known is not None and here and known.state in SEATED:
            yield Seat(node, stay.since, None, stay.place[1])
            return
        until = stay.gone or (known.since if known is not None else stay.sure)
        yield from self._left(node, stay, max(until, stay.sure), told=False)


@dataclass(frozen=True, slots=True)
class _Hint:
    """A grant, or the end of an attempt, as it concerns one node."""

    attempt: int
    state: NodeState | None  #: as what it is named; None: it is not
    over: bool = False


def _weigh(stay: _Stay, at: datetime, hint: _Hint) -> None:
    if hint.state is not None:
        stay.sure, stay.named, stay.gone = at, True, None
    elif stay.gone is None and (stay.named or hint.over):
        stay.gone = at


def levels(
    seats: Iterable[Seat],
    formed: Iterable[tuple[datetime, frozenset[str]]],
    worth: Mapping[NodeName, Worth],
) -> list[Held]:
    """Return how many GPUs were held from when on, and how many of them stood by.

    `formed`: when each generation was formed, and the names of its members. A standby that the
    gang took for a member stands by no longer, whatever its state is called until that is seen.
    """
    begins: defaultdict[datetime, list[Seat]] = defaultdict(list)
    ends: defaultdict[datetime, list[Seat]] = defaultdict(list)
    for seat in seats:
        if seat.until is None or seat.until > seat.since:
            begins[seat.since].append(seat)
            if seat.until is not None:
                ends[seat.until].append(seat)
    members = dict(sorted(formed, key=lambda one: (one[0], sorted(one[1]))))
    present: dict[NodeName, Seat] = {}
    inside: frozenset[str] = frozenset()
    found = []
    for at in sorted({*begins, *ends, *members}):
        inside = members.get(at, inside)
        for seat in ends[at]:
            if present.get(seat.node) is seat:
                del present[seat.node]
        present.update((seat.node, seat) for seat in begins[at])
        found.append(_level(at, present.values(), inside, worth))
    return found


def _level(
    at: datetime,
    present: Iterable[Seat],
    members: frozenset[str],
    worth: Mapping[NodeName, Worth],
) -> Held:
    gpus = standby = unsure = 0
    paid: float | None = 0.0
    for seat in present:
        one = worth[seat.node]
        gpus += one.gpus
        aside = seat.state is NodeState.STANDBY and seat.node not in members
        standby += one.gpus if aside else 0
        unsure += one.gpus if seat.unsure else 0
        paid = None if paid is None or one.price is None else paid + one.price * one.gpus
    return Held(at, gpus, standby, paid / gpus if gpus and paid is not None else None, unsure)


def _worth(gpus: object, price: object) -> Worth:
    whole = gpus if isinstance(gpus, int) and 0 < gpus <= GPUS_MAX else 0
    count = max(1, whole)
    dear = float(price) if isinstance(price, int | float) and price >= 0 else None
    return Worth(count, None if dear is None else dear / count, counted=whole > 0)
