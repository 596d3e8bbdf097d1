"""One YAML file as plain data that remembers on which line each key stands.

A mistake in a file is worth nothing to its author without its place, so the parser's node tree is
kept beside the data. Stricter than YAML asks for: a key given twice is refused (YAML lets the
last one win, silently), and a date stays text (`cohort: 2026-08-14` is a name).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import UserError

SIZE_MAX = 1_000_000  #: bytes; a configuration is written by a person
DEPTH_MAX = 50  #: levels of nesting

_MERGE = "tag:yaml.org,2002:merge"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """The safe loader, which builds no objects; dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Document:
    """The plain data of one file, and where each part of it stands."""

    path: Path
    data: Any
    root: yaml.Node | None  #: of the parser; only its marks are used

    def where(self, keys: Sequence[str | int]) -> int | None:
        """Return the line, from 1, of the deepest part of `keys` that is in the file."""
        node, line = self.root, None
        for key in (*keys, None):
            if node is None:
                break
            line = node.start_mark.line + 1 if line is None else line
            if key is not None:
                node, found = _child(node, key)
                line = found if found is not None else line
        return line

    def has(self, keys: Sequence[str | int]) -> bool:
        """Say whether the data has this part."""
        data: Any = self.data
        for key in keys:
            match data:
                case dict() if key in data:
                    data = data[key]
                case list() if isinstance(key, int) and key < len(data):
                    data = data[key]
                case _:
                    return False
        return True


def read(path: Path) -> Document:
    """Read one YAML file whose top level is a mapping; raises `UserError` naming the place."""
    try:
        if path.stat().st_size > SIZE_MAX:
            raise UserError(f"{path}: larger than {SIZE_MAX} bytes; that is no configuration")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Document:
    """Parse YAML text; `path` is only used to name it in errors."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is not None:
            _refuse_repeats(root, path, depth=0)
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise UserError(_syntax(error, path)) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UserError(f"{path}: not YAML: {error}") from error
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected keys and values, got {describe(data)}")
    return Document(path, data, root)


def describe(value: Any) -> str:
    """Return a value as people call it, short enough for one line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case str() if len(value) > 60:
            return repr(value[:57] + "...")
        case _:
            return repr(value)


def _child(node: yaml.Node, key: str | int) -> tuple[yaml.Node | None, int | None]:
    """Return the part of `node` under `key` and its line, or (None, None)."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return value, name.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key].start_mark.line + 1
    return None, None


def _refuse_repeats(node: yaml.Node, path: Path, *, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise UserError(f"{path}:{node.start_mark.line + 1}: nested more than {DEPTH_MAX} deep")
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeats(item, path, depth=depth + 1)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[Hashable, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            key = name.value
            if isinstance(key, str) and name.tag != _MERGE:
                if key in seen:
                    raise UserError(f"{path}:{line}: {key}: given twice, first on line {seen[key]}")
                seen[key] = line
            _refuse_repeats(value, path, depth=depth + 1)


def _syntax(error: yaml.MarkedYAMLError, path: Path) -> str:
    # `str(error)` would quote the line, which may hold a secret
    line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
    return f"{path}{line}: not YAML: {error.problem or error.context}"
