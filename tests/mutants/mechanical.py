"""Mechanical mutants: every small change of a file that a slip could make, by its syntax tree.

Left alone are words for people (strings, and what only they are made of), annotations and imports.
The same seed draws the same sample of the same files.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.mutants.mutant import Mutant, last_line

FILES = (
    "orchestrator/core/reconcile.py",
    "orchestrator/core/recovery.py",
    "orchestrator/core/custody.py",
    "orchestrator/core/placement.py",
    "orchestrator/runtime/membership.py",
)
COMPARISONS: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
SUMS: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.LShift: ">>",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
Change = tuple[ast.AST, str, str]  #: what is replaced, by what, and the kind of change


def draw(root: Path, count: int, seed: int) -> list[Mutant]:
    """Draw so many of all mutants of the five files, in the order of file and line."""
    every = [mutant for file in FILES for mutant in mutants(root, file)]
    picked = Random(seed).sample(range(len(every)), min(count, len(every)))
    return [every[number] for number in sorted(picked)]


def mutants(root: Path, file: str) -> list[Mutant]:
    """Return every mutant of a file."""
    text = (root / file).read_text()
    tree = ast.parse(text)
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    data, found, seen = text.encode(), [], set()
    for statement in _statements(tree):
        lines = frozenset(range(statement.lineno, last_line(statement) + 1))
        for node, new, kind in _changes(statement):
            begin = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
            end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
            mutated = (data[:begin] + new.encode() + data[end:]).decode()
            if mutated == text or mutated in seen:
                continue
            seen.add(mutated)
            old = " ".join(data[begin:end].decode().split())
            where = f"{file}:{node.lineno}:{node.col_offset}"  # type: ignore[attr-defined]
            shown = " ".join(new.split())
            what = f"{kind}: {old[:70]} -> {shown[:70]}"
            found.append(Mutant(f"{where} {kind} {shown[:24]}", file, mutated, lines, what))
    return sorted(found, key=lambda one: (min(one.lines), one.name))


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.stmt) and not _names_exports(node):
            yield node


def _names_exports(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _changes(statement: ast.stmt) -> Iterator[Change]:
    """Yield the changes of one statement, not of those inside it."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        yield statement, "pass", "call removed"
    if isinstance(statement, ast.Return) and _returns_something(statement):
        yield statement, "return None", "return changed"
    if isinstance(statement, ast.Return) and statement.value is None:
        yield statement, "pass", "return removed"
    if isinstance(statement, ast.Continue | ast.Break):
        yield statement, "pass", "jump removed"
    if isinstance(statement, ast.If | ast.While):
        yield from _negated(statement.test)
    for node in _expressions(statement):
        yield from _changes_of(node)


def _returns_something(statement: ast.Return) -> bool:
    value = statement.value
    return value is not None and not (isinstance(value, ast.Constant) and value.value is None)


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Walk the expressions of a statement's own, without annotations, strings and bodies."""
    waiting: list[ast.AST] = [
        child
        for name, value in ast.iter_fields(statement)
        if name not in ("body", "orelse", "handlers", "finalbody", "annotation", "cases")
        for child in (value if isinstance(value, list) else [value])
        if isinstance(child, ast.AST)
    ]
    if isinstance(statement, ast.Match):
        waiting += [case.guard for case in statement.cases if case.guard is not None]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.JoinedStr):
            yield node
            waiting += ast.iter_child_nodes(node)


def _changes_of(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare(ops=[operator], left=left, comparators=[right]):
            for new in COMPARISONS[type(operator)]:
                text = f"({ast.unparse(left)} {new} {ast.unparse(right)})"
                yield node, text, "comparison"
        case ast.BoolOp():
            yield from _combined(node)
        case ast.BinOp(op=operator, left=left, right=right) if type(operator) in SUMS:
            new = SUMS[type(operator)]
            yield node, f"(({ast.unparse(left)}) {new} ({ast.unparse(right)}))", "arithmetic"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, f"({ast.unparse(operand)})", "not removed"
        case ast.IfExp(test=test, body=body, orelse=other):
            text = f"({ast.unparse(other)} if {ast.unparse(test)} else {ast.unparse(body)})"
            yield node, text, "condition negated"
        case ast.comprehension(ifs=ifs):
            yield from (change for one in ifs for change in _negated(one))
        case _:
            yield from _another_word(node)


def _another_word(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Constant(value=bool(value)):
            yield node, str(not value), "constant"
        case ast.Constant(value=int(value) | float(value)):
            yield node, str(value + 1), "constant"
        case ast.Call(func=ast.Name(id=name) as called) if name in SWAPPED:
            yield called, SWAPPED[name], "function swapped"


def _combined(node: ast.BoolOp) -> Iterator[Change]:
    """Swap `and` and `or`; leave out one operand after the other."""
    parts = [f"({ast.unparse(one)})" for one in node.values]
    ours, other = (" and ", " or ") if isinstance(node.op, ast.And) else (" or ", " and ")
    yield node, f"({other.join(parts)})", "and/or"
    for number in range(len(parts)):
        kept = [part for place, part in enumerate(parts) if place != number]
        yield node, f"({ours.join(kept)})", "operand removed"


def _negated(test: ast.expr) -> Iterator[Change]:
    """Negate a condition that no other change negates."""
    simple = isinstance(test, ast.Compare) and len(test.ops) == 1
    if not simple and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
        yield test, f"(not ({ast.unparse(test)}))", "condition negated"
