"""Which of many signs is the cause: the strongest sort, and of that the first line.

A dead GPU makes ranks fail, their peers lose a connection, and the watchdogs of all the others run
out: the last are the loudest and say the least. So every rule has a strength (hardware and
scheduler, then named errors, then plain exceptions, then victims), signs of about equal strength
compete by their place in the text, and whoever only says "my peer is gone" never wins over one who
says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from healthchecks.diagnose.places import Place
from healthchecks.diagnose.rulebook import Answer, Rule, Rulebook

BAND = 10  #: strengths of one band compete by place
HARMLESS = 10  #: and below: no sign of a failure
MENDED = 9  #: and above: whatever sounded like a failure was over when this was said
LINES_MAX = 5  #: of evidence for each sign


class Sign(NamedTuple):
    """One rule that held, and where."""

    rule: Rule
    lines: tuple[int, ...]  #: the first few, rising
    times: int
    place: Place  #: what its first lines name

    @property
    def first(self) -> int:
        """The line where it held first."""
        return self.lines[0]


class Diagnosis(NamedTuple):
    """What a text says of a failure."""

    kind: str
    family: str
    node_at_fault: Answer  #: true, false or "unknown"
    restart_helps: Answer
    confidence: float  #: 0 to 1
    evidence: tuple[int, ...]  #: line numbers, from one; the first is where the cause shows
    rule: str  #: the rule that decided, "" for none
    node: str | None = None
    gpu: str | None = None
    rank: int | None = None
    also: tuple[str, ...] = ()  #: other kinds that the text shows: consequences, as we read it


def choose(signs: Mapping[str, Sign], book: Rulebook, *, alarming: bool) -> Diagnosis:
    """Name the cause. `alarming`: whether the text has words of failure that no rule knows."""
    real = [one for one in signs.values() if one.rule.strength > HARMLESS]
    if not real:
        return _harmless(signs, book, alarming=alarming)
    best = _best(real)
    kind = book.kinds[best.rule.kind]
    rivals = [one for one in real if one.rule.kind != best.rule.kind]
    at_fault, helps = best.rule.node_at_fault, best.rule.restart_helps
    place = best.place
    for one in sorted(real, key=lambda one: one.first):
        if one.rule.kind == best.rule.kind:
            place = place.filled(one.place)
    return Diagnosis(
        kind=kind.name,
        family=kind.family,
        node_at_fault=kind.node_at_fault if at_fault is None else at_fault,
        restart_helps=kind.restart_helps if helps is None else helps,
        confidence=_confidence(best, rivals),
        evidence=_evidence(best, real),
        rule=best.rule.name,
        node=place.node,
        gpu=place.gpu,
        rank=place.rank,
        also=tuple(sorted({one.rule.kind for one in rivals})),
    )


def _best(real: list[Sign]) -> Sign:
    """Choose among the signs within one band of the strongest: the first, then the stronger."""
    top = max(one.rule.strength for one in real)
    rivals = sorted(
        (one for one in real if one.rule.strength > top - BAND),
        key=lambda one: (one.first, -one.rule.strength),
    )
    best = rivals[0]
    for one in sorted(real, key=lambda one: one.first):
        if one.rule.kind in best.rule.yields_to_earlier and one.first < best.first:
            return one
    return best


def _harmless(signs: Mapping[str, Sign], book: Rulebook, *, alarming: bool) -> Diagnosis:
    """Nothing that any rule calls a failure: benign, unless something else sounds like one."""
    known = sorted(signs.values(), key=lambda one: (-one.rule.strength, one.first))
    mended = bool(known) and known[0].rule.strength >= MENDED
    benign = mended or not alarming
    kind = book.kinds["benign" if benign else "unknown"]
    return Diagnosis(
        kind=kind.name,
        family=kind.family,
        node_at_fault=kind.node_at_fault,
        restart_helps=kind.restart_helps,
        confidence=(0.8 if known else 0.5) if benign else 0.2,
        evidence=known[0].lines if known else (),
        rule=known[0].rule.name if known else "",
    )


def _confidence(best: Sign, rivals: list[Sign]) -> float:
    """Strength says how sure; a rival of about the same strength takes some of it away."""
    sure = 0.35 + 0.62 * best.rule.strength / 100
    near = max((one.rule.strength for one in rivals), default=0)
    if near > best.rule.strength - BAND:
        sure *= 0.75
    return round(sure, 2)


def _evidence(best: Sign, real: list[Sign]) -> tuple[int, ...]:
    """Return the lines of the cause, then those of other signs of the same kind."""
    lines = dict.fromkeys(best.lines)
    for one in real:
        if one.rule.kind == best.rule.kind:
            lines |= dict.fromkeys(one.lines)
    return tuple(lines)[: 2 * LINES_MAX]
