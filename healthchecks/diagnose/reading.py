"""Reads a stream once, and collects the signs that hold."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import IO

from healthchecks.diagnose import places, sieve
from healthchecks.diagnose.cause import HARMLESS, LINES_MAX, Diagnosis, Sign, choose
from healthchecks.diagnose.rulebook import Rule, Rulebook, rulebook
from healthchecks.diagnose.sieve import Line

#: Words of failure; a text with one of them and no known sign is "unknown", not "benign".
ALARM = (
    *("error", "fail", "fatal", "abort", "traceback", "exception", "kill", "crash", "panic"),
    *("nvrm: xid", "evicted", "preempt", "corrupt", "timed out", "unreachable", "refused"),
    *(
        "out of memory",
        "loss nan",
        "loss: nan",
        "loss=nan",
        "loss is nan",
        "no space",
        "stale file",
    ),
)


def diagnose(stream: IO[bytes], book: Rulebook | None = None) -> Diagnosis:
    """Say what a failure's text (any bytes) tells of its cause. Reads to the end, once."""
    index = _usual() if book is None else _Index.of(book)
    notes = _Notes(index)
    for line in sieve.sift(stream, index.find):
        notes.take(line)
    return choose(notes.signs, notes.book, alarming=notes.alarming)


def diagnose_text(text: str | bytes, book: Rulebook | None = None) -> Diagnosis:
    """Do the same with a text at hand."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return diagnose(io.BytesIO(raw), book)


@dataclass(frozen=True, slots=True)
class _Index:
    """A rulebook with its rules by literal; made once for many texts."""

    book: Rulebook
    literals: tuple[str, ...]  #: the alarm words are the first
    rules: tuple[list[Rule], ...]  #: by the number of the literal
    find: sieve.Finder

    @classmethod
    def of(cls, book: Rulebook) -> _Index:
        """Look up the literals of all rules."""
        by_literal: dict[str, list[Rule]] = {one: [] for one in ALARM}
        for rule in book.rules:
            for literal in rule.literals:
                by_literal.setdefault(literal, []).append(rule)
        literals = tuple(by_literal)
        return cls(book, literals, tuple(by_literal.values()), sieve.finder(literals))


@cache
def _usual() -> _Index:
    return _Index.of(rulebook())


class _Notes:
    """The signs so far. Their number is that of the rules, however long the text."""

    def __init__(self, index: _Index) -> None:
        self.book, self._rules = index.book, index.rules
        self.signs: dict[str, Sign] = {}
        self.alarming = False

    def take(self, line: Line) -> None:
        """Note what one line says."""
        able = {rule.name: rule for literal in line.literals for rule in self._rules[literal]}
        rules = _holding(able.values(), line.low)
        for rule in rules:
            self._note(rule, line)
        if not rules and min(line.literals) < len(ALARM):
            self.alarming = True

    def _note(self, rule: Rule, line: Line) -> None:
        sign = self.signs.get(rule.name)
        if sign is None:
            self.signs[rule.name] = Sign(rule, (line.number,), 1, places.read(line.text))
        elif len(sign.lines) < LINES_MAX:
            place = sign.place.filled(places.read(line.text))
            self.signs[rule.name] = Sign(rule, (*sign.lines, line.number), sign.times + 1, place)
        else:
            self.signs[rule.name] = sign._replace(times=sign.times + 1)


def _holding(able: Collection[Rule], low: str) -> list[Rule]:
    """Return the rules that hold; what masks stands alone, what is generic gives way."""
    holding = [one for one in able if not one.generic and _holds(one, low)]
    if masks := [one for one in holding if one.masks]:
        return masks
    if any(one.strength > HARMLESS for one in holding):
        return [one for one in holding if one.strength > HARMLESS]
    return [*holding, *(one for one in able if one.generic and _holds(one, low))]


def _holds(rule: Rule, low: str) -> bool:
    return rule.pattern is None or rule.pattern.search(low) is not None
