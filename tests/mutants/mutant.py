"""A mutant: one file of the tree with one thing in it changed, and the lines where that is."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NAMED = Path(__file__).with_name("named.yaml")


class NoMatchError(ValueError):
    """The text that a named mutant replaces does not stand exactly once in its file."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file."""

    name: str
    file: str
    text: str  #: the whole file with the change
    lines: frozenset[int]  #: of the file as it is, that the changed statements span
    what: str
    promise: str = ""


def read_named(root: Path) -> list[Mutant]:
    """Return the listed mutants; raises `NoMatchError` for one that matches no more."""
    listed = yaml.safe_load(NAMED.read_text())
    names = [entry["name"] for entry in listed]
    if len(names) != len(set(names)):
        raise NoMatchError(f"a name stands twice in {NAMED.name}")
    return [_named(root, entry) for entry in listed]


def _named(root: Path, entry: dict[str, Any]) -> Mutant:
    name, file = entry["name"], entry["file"]
    original = text = (root / file).read_text()
    touched: set[int] = set()
    for old, new in (("old", "new"), ("old2", "new2")):
        if old not in entry:
            continue
        times = original.count(entry[old])
        if times != 1:
            raise NoMatchError(f"{name}: its `{old}` stands {times} times in {file}, not once")
        first = original[: original.index(entry[old])].count("\n") + 1
        touched.update(range(first, first + max(1, entry[old].rstrip("\n").count("\n") + 1)))
        text = text.replace(entry[old], entry[new])
    ast.parse(text)
    lines = spanned(ast.parse(original), touched)
    return Mutant(name, file, text, lines, entry["breaks"], entry["promise"])


def spanned(tree: ast.Module, touched: Iterable[int]) -> frozenset[int]:
    """Return all lines of the statements that these lines belong to; of a block, its head's."""
    wanted, found = set(touched), set(touched)
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            lines = range(node.lineno, last_line(node) + 1)
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) and wanted & set(lines):
                found.update(lines)
    return frozenset(found)


def last_line(node: ast.stmt) -> int:
    """Return the last line of a statement; of a block, the last one before its body."""
    body = getattr(node, "body", None) or getattr(node, "cases", None)
    if not body:
        return node.end_lineno or node.lineno
    first = body[0].pattern if isinstance(body[0], ast.match_case) else body[0]
    return max(node.lineno, int(first.lineno) - 1)
