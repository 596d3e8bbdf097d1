"""Finds the `holdfast ...` command lines in a Markdown text, fenced and inline.

Prose such as "`holdfast` exits 0" names the program and gives no command; a line with an ellipsis,
or alternatives such as `list|show`, is a picture of commands and not one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_ENDS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1"})
_PICTURE = re.compile(r"\.\.\.|…|\w\|\w|\[[A-Za-z-]")


class CommandLine(NamedTuple):
    """One command line of a text, without the word holdfast."""

    line: int
    words: tuple[str, ...]
    fenced: bool  #: meant to be copied; what stands in prose may name a command without its rest


def command_lines(text: str) -> list[CommandLine]:
    """Return every command line of holdfast in a Markdown text, in its order."""
    fenced = [(found.start(1), found[1]) for found in _FENCE.finditer(text)]
    prose = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    spans = [(found.start(1), " ".join(found[1].split())) for found in _INLINE.finditer(prose)]
    lines = [one for start, block in fenced for one in _of_block(text.count("\n", 0, start), block)]
    lines += [
        one
        for start, span in spans
        for one in _of(prose.count("\n", 0, start) + 1, span, fenced=False)
    ]
    return sorted(lines, key=lambda one: one.line)


def _of_block(before: int, block: str) -> Iterator[CommandLine]:
    begun, first = "", before + 1
    for number, line in enumerate(block.splitlines(), before + 1):
        first = first if begun else number
        begun += line.strip().removesuffix("\\") + " "
        if not line.endswith("\\"):
            yield from _of(first, begun.strip().removeprefix("$ "), fenced=True)
            begun = ""


def _of(number: int, text: str, *, fenced: bool) -> Iterator[CommandLine]:
    program, _, rest = text.partition(" ")
    if program.rpartition("/")[2] != "holdfast" or not rest.strip() or _PICTURE.search(rest):
        return
    words = shlex.split(rest, comments=True)
    end = next((at for at, word in enumerate(words) if word in _ENDS), len(words))
    yield CommandLine(number, tuple(words[:end]), fenced)
