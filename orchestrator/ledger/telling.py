"""What the ledger tells of what it stores: events from decisions, outcomes and agents' notes.

Pure, and shared by every implementation, so that a story reads the same from memory, SQLite and
PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from orchestrator.core.decisions import Decision, Effect
from orchestrator.core.explain import explain
from orchestrator.core.observations import AgentSeen, Observation
from orchestrator.ledger.api import Event

SUBJECT_FIELDS = ("node", "job", "cluster", "subject")


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


def of_decision(decision: Decision, now: datetime) -> Event:
    """Tell that a decision was enacted or written down as an intent."""
    kind = type(decision).__name__
    return Event(now, kind, subjects_of(decision), explain(decision))


def of_outcome(decision: Effect, *, ok: bool, text: str, now: datetime) -> Event:
    """Tell what came of an intent."""
    kind = f"{type(decision).__name__}-{'done' if ok else 'failed'}"
    return Event(now, kind, subjects_of(decision), text)


def of_notes(observations: Iterable[Observation]) -> Iterator[tuple[str, Event]]:
    """Yield (unique key, event) of each note in the agents' reports."""
    for seen in observations:
        if not isinstance(seen, AgentSeen):
            continue
        report = seen.report
        subjects = (report.node, report.job, f"{report.job}/{report.attempt}")
        for note in report.notes:
            at = _moment(note.at, seen.at)
            actor, text = f"agent {report.node}", f"{report.node}: {note.text}"
            told = Event(at, note.kind, subjects, text, actor=actor, data=dict(note.data))
            yield f"{report.node}/{report.agent}/{note.number}", told


def _moment(seconds: float, otherwise: datetime) -> datetime:
    """Return a node's epoch seconds as a moment; what is not one becomes `otherwise`."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return otherwise
