"""Finds the few lines of a long text that a rule could be about, at the speed of memory.

A chunk is searched for all literals at once, then only lines with a hit are looked at, together
with the literals that are on them. With `ahocorasick_rs` that is one pass of an automaton; without
it, one `find` for each literal. Lines are numbered from one, as editors do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple

CHUNK = 1 << 20  #: bytes read at once
LINE_MAX = 4096  #: bytes that are looked at together; a longer line is read in windows
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")

#: Lower-case bytes -> (offset, number of the literal) of every hit, by rising offset.
Finder = Callable[[bytes], Iterable[tuple[int, int]]]


class Line(NamedTuple):
    """One line that contains a literal."""

    number: int
    text: str  #: as it was written, without colours
    low: str  #: the same in lower case
    literals: tuple[int, ...]  #: the numbers of those that are on it


def sift(stream: IO[bytes], find: Finder) -> Iterator[Line]:
    """Yield the lines of a stream with a hit, in order; memory stays that of two chunks."""
    number, left = 1, b""
    while chunk := stream.read(CHUNK):
        block = left + chunk
        end = block.rfind(b"\n") + 1 or (len(block) if len(block) > CHUNK else 0)
        left, block = block[end:], block[:end]
        yield from _lines(block, number, find)
        number += block.count(b"\n")
    yield from _lines(left, number, find)


def _lines(block: bytes, number: int, find: Finder) -> Iterator[Line]:
    """Yield the lines of whole lines; a carriage return (progress bars) ends one, uncounted."""
    start, end = 0, -1  # of the line whose literals are being collected
    literals: list[int] = []
    for at, literal in find(block.lower()):
        if at >= end:
            if literals:
                yield _line(number, block[start:end], literals)
            before, literals = max(start, 0), []
            line = max(block.rfind(b"\n", before, at), block.rfind(b"\r", before, at)) + 1
            number += block.count(b"\n", before, at)
            start = max(line or before, at - LINE_MAX // 2)
            end = min(_end(block, b"\n", at), _end(block, b"\r", at), start + LINE_MAX)
        literals.append(literal)
    if literals:
        yield _line(number, block[start:end], literals)


def _end(block: bytes, mark: bytes, at: int) -> int:
    found = block.find(mark, at, at + LINE_MAX)
    return found if found >= 0 else len(block)


def _line(number: int, raw: bytes, literals: list[int]) -> Line:
    text = raw.decode("utf-8", "replace")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return Line(number, text, text.lower(), tuple(literals))


def finder(literals: Iterable[str]) -> Finder:
    """Return what finds these literals in lower-case bytes: the fastest there is."""
    needles = [one.encode() for one in literals]
    try:
        import ahocorasick_rs
    except ImportError:
        return by_find(needles)
    return _by_automaton(ahocorasick_rs.BytesAhoCorasick(needles))


def _by_automaton(automaton: Any) -> Finder:
    def find(low: bytes) -> list[tuple[int, int]]:
        hits = automaton.find_matches_as_indexes(low, overlapping=True)
        return sorted((start, literal) for literal, start, _ in hits)

    return find


def by_find(needles: list[bytes]) -> Finder:
    """Look for each literal in turn; it is told once a line."""

    def find(low: bytes) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for number, needle in enumerate(needles):
            at = low.find(needle)
            while at >= 0:
                found.append((at, number))
                end = low.find(b"\n", at)
                at = low.find(needle, end) if end >= 0 else -1
        return sorted(found)

    return find
