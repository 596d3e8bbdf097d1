"""Maps that say how they differ from the map they were made from, without being compared.

A fleet of ten thousand nodes changes by a few at a time. `enact` and `assess` make a new map with
`draft`; `changed` then finds what differs between it and one of its forebears in the number of
changes. Any two other maps are compared entry by entry, so that nothing depends on this but speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from operator import is_, is_not
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")
FOREBEARS_MAX = 64  #: makings that are remembered


class Sheet(dict[K, V]):
    """A map and the keys that were written since it was made from another one.

    Written while it is drafted, by the methods below only, and by nobody after that.
    """

    __slots__ = ("_forebears", "_mark", "_written")

    def __init__(self, entries: Mapping[K, V]) -> None:
        """Begin with these entries; without forebears, unless they are a sheet themselves."""
        super().__init__(entries)
        self._mark = object()
        self._written: set[K] = set()
        self._forebears: tuple[tuple[object, set[K]], ...] = ()
        if isinstance(entries, Sheet):
            past = entries._forebears[: FOREBEARS_MAX - 1]
            self._forebears = ((entries._mark, self._written), *past)

    def __setitem__(self, key: K, value: V) -> None:
        """Write one entry."""
        self._written.add(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: K) -> None:
        """Remove one entry."""
        self._written.add(key)
        super().__delitem__(key)

    def update(self, entries: Any) -> None:
        """Write several entries."""
        for key, value in dict(entries).items():
            self[key] = value

    def __reduce__(self) -> tuple[type, tuple[dict[K, V]]]:
        """Travel as a plain map."""
        return dict, (dict(self),)

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a sheet is written entry by entry")

    pop = popitem = setdefault = clear = __ior__ = _refused

    def since(self, old: Sheet[K, V]) -> set[K] | None:
        """Return the keys written since that forebear; None if it is none, or too long ago."""
        written: set[K] = set()
        for mark, keys in self._forebears:
            written |= keys
            if mark is old._mark:
                return written
        return None


def draft(entries: Mapping[K, V]) -> Sheet[K, V]:
    """Return a copy of a map, to be written on."""
    return Sheet(entries)


def but(entries: Mapping[K, V], key: K, value: V) -> Sheet[K, V]:
    """Return a map with one entry written."""
    sheet = Sheet(entries)
    sheet[key] = value
    return sheet


def changed(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> list[Any]:
    """Return the keys under which two maps do not hold the very same object."""
    if old is new:
        return []
    if isinstance(old, Sheet) and isinstance(new, Sheet):
        written = new.since(old)
        if written is not None:
            return [key for key in written if old.get(key) is not new.get(key)]
    if len(old) == len(new) and all(map(is_, old, new)):
        return list(compress(new, map(is_not, new.values(), old.values())))
    names = list(compress(new, map(is_not, new.values(), map(old.get, new))))
    names.extend(old.keys() - new.keys())
    return names


def differing(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> list[Any]:
    """Return the keys under which two maps do not hold equal things."""
    return [name for name in changed(old, new) if old.get(name) != new.get(name)]
