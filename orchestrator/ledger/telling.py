"""What the ledger tells of what it stores: events from decisions, outcomes and agents' notes.

Pure, and shared by every implementation, so that a story reads the same from memory, SQLite and
PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import Decision, Effect, MoveNode, Renew, SettleOrder
from orchestrator.core.explain import explain
from orchestrator.core.fleet import Fleet
from orchestrator.core.news import news
from orchestrator.core.nodes import SEATED, Machine, Node
from orchestrator.core.observations import AgentSeen, Observation, Ordered
from orchestrator.ledger.api import Event

SUBJECT_FIELDS = ("node", "job", "cluster", "subject", "detector")


def subjects_of(decision: Decision) -> tuple[str, ...]:
    """Return what a decision is about: its node, job, attempt, cluster, and nodes it names."""
    named = [str(getattr(decision, name)) for name in SUBJECT_FIELDS if getattr(decision, name, "")]
    job, attempt = getattr(decision, "job", None), getattr(decision, "attempt", None)
    if job is not None and attempt is not None:
        named.append(f"{job}/{attempt}")
    seen = getattr(decision, "seen", None)
    named += [str(seen.node)] if seen is not None else []
    named += [*getattr(decision, "nodes", ()), *getattr(decision, "standbys", ())]
    return tuple(dict.fromkeys(named))


def of_decision(decision: Decision, now: datetime, fleet: Fleet | None = None) -> Event:
    """Tell that a decision was enacted or written down as an intent.

    With the fleet that it was made on, the answer to an order is told of the order's subject, and
    a node that leaves a seat is told of the job that it leaves. `data` has what accounts are made
    of (`bookkeeping`).
    """
    subjects = subjects_of(decision)
    if isinstance(decision, SettleOrder) and fleet is not None:
        orders = fleet.beliefs.orders
        subjects = tuple(one.subject for one in orders if one.number == decision.order)
    data = _data(decision, fleet)
    if "job" in data:
        job = f"{data['job']}"
        subjects = tuple(dict.fromkeys((*subjects, job, f"{job}/{data['attempt']}")))
    return Event(now, type(decision).__name__, subjects, explain(decision), data=data)


def _data(decision: Decision, fleet: Fleet | None) -> dict[str, Any]:
    """Return what the accounts of a job need of a decision, as plain JSON types."""
    match decision:
        case MoveNode(node=name, start=start, end=end) if fleet is not None:
            node = fleet.nodes.get(name)
            seat = _seat(node, decision if end in SEATED else None)
            return {"start": start.value, "end": end.value, **seat}
        case Renew(node=name, machine=machine) if fleet is not None:
            node = fleet.nodes.get(name)
            if node is None or node.state not in SEATED:
                return {}
            state = node.state.value
            return {"start": state, "end": state, **_seat(node, None), **_worth(machine)}
        case _:
            return {}


def _seat(node: Node | None, entering: MoveNode | None) -> dict[str, Any]:
    """Return whose seat a node enters, keeps or leaves, and what it is worth; {} if nobody's."""
    if node is None:
        return {}
    job, attempt = node.job, node.attempt
    if entering is not None and entering.job is not None:
        job, attempt = entering.job, entering.attempt
    if job is None or attempt is None:
        return {}
    return {"job": job, "attempt": attempt, **_worth(node.machine)}


def _worth(machine: Machine) -> dict[str, Any]:
    return {"gpus": machine.accelerators, "price_per_hour": machine.price_per_hour}


def of_order(order: Ordered) -> Event:
    """Tell what a person asked for."""
    text = f"{order.by} asks for {order.kind.value} of {order.subject}"
    text = f"{text}: {order.reason}" if order.reason else text
    data = {"order": order.number}
    return Event(order.at, "Ordered", (order.subject,), text, f"operator {order.by}", data)


def of_beliefs(before: Beliefs, after: Beliefs) -> tuple[Event, ...]:
    """Tell what the controller noticed: a silence, a return, a finding, a generation."""
    return tuple(
        Event(one.at, one.kind, one.subjects, one.text, data=one.data)
        for one in news(before, after)
    )


def of_refusal(seen: Observation, reason: str, now: datetime) -> tuple[str, Event]:
    """Return (unique key, event) of an observation that cannot be kept; told once a day.

    Somebody broke the protocol, by a bug or on purpose: his words are not taken for anything.
    """
    kind = type(seen).__name__
    named = (getattr(seen, name, None) for name in SUBJECT_FIELDS)
    subjects = tuple(one for one in named if isinstance(one, str))
    text = f"what {', '.join(subjects)} said is not believed: {reason}"
    told = Event(now, "observation-refused", subjects, text)
    return _unique("refused", kind, *subjects, f"{now:%Y-%m-%d}"), told


def of_outcome(decision: Effect, *, ok: bool, text: str, now: datetime) -> Event:
    """Tell what came of an intent."""
    kind = f"{type(decision).__name__}-{'done' if ok else 'failed'}"
    return Event(now, kind, subjects_of(decision), text)


def of_notes(observations: Iterable[Observation]) -> Iterator[tuple[str, Event]]:
    """Yield (unique key, event) of each note in the agents' reports."""
    for seen in observations:
        if not isinstance(seen, AgentSeen):
            continue
        node, report = str(seen.node), seen.report
        subjects = (node, report.job, f"{report.job}/{report.attempt}")
        for note in report.notes:
            at = _moment(note.at, seen.at)
            actor, text = f"agent {node}", f"{node}: {note.text}"
            told = Event(at, note.kind, subjects, text, actor=actor, data=dict(note.data))
            yield _unique("note", node, report.agent, note.number), told


def _unique(*parts: object) -> str:
    """Return a short key that is the same for the same parts, however long they are."""
    return sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()


def _moment(seconds: float, otherwise: datetime) -> datetime:
    """Return a node's epoch seconds as a moment; what is not one becomes `otherwise`."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return otherwise
