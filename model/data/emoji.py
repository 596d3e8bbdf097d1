"""The embedded pictures and their captions: 1,870 emoji, named in 32 languages."""

from __future__ import annotations

import io
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.embedded import read_embedded
from orchestrator.errors import UserError

SPRITE = 32  #: pixels
EVERYTHING = "all"
_HEADER = 3  # columns before the languages: code points, group, subgroup


@dataclass(frozen=True)
class Captioned:
    """One sprite, one language, one name: what a sample is drawn from."""

    sprite: int
    language: str
    caption: str


@dataclass(frozen=True)
class Table:
    """The caption table, column by column."""

    codepoints: tuple[str, ...]
    groups: tuple[str, ...]  #: short: "animals" for Unicode's "Animals & Nature"
    captions: dict[str, tuple[str, ...]]  #: by language; "" where CLDR has no name


@cache
def table() -> Table:
    """Return the caption table, read once."""
    lines = lzma.decompress(read_embedded("captions.tsv.xz")).decode().splitlines()
    columns = {name: tuple(cells) for name, *cells in (line.split("\t") for line in lines)}
    return Table(
        codepoints=columns["codepoints"],
        groups=tuple(group.split()[0].lower() for group in columns["group"]),
        captions={name: columns[name] for name in list(columns)[_HEADER:]},
    )


@cache
def sprites() -> NDArray[np.uint8]:
    """Return all sprites, (n, 32, 32, 4) RGBA, in the order of the table."""
    from PIL import Image  # here: the text-only paths need no pillow

    with Image.open(io.BytesIO(read_embedded("sprites.png"))) as image:
        sheet = np.asarray(image.convert("RGBA"))
    rows, columns = sheet.shape[0] // SPRITE, sheet.shape[1] // SPRITE
    cells = sheet.reshape(rows, SPRITE, columns, SPRITE, 4).swapaxes(1, 2)
    return cells.reshape(-1, SPRITE, SPRITE, 4)[: len(table().codepoints)]


def select(subset: str, languages: Sequence[str]) -> tuple[Captioned, ...]:
    """Return the captioned sprites of some groups in some languages.

    `subset` is "all" or group names joined by "-", as in "animals-food-objects"; a sprite without
    a name in a language is left out. Raises UserError for an unknown group or language.
    """
    names = table()
    groups = known("group", subset.split("-"), [EVERYTHING, *dict.fromkeys(names.groups)])
    spoken = known("language", languages, list(names.captions))
    return tuple(
        Captioned(sprite, language, names.captions[language][sprite])
        for sprite, group in enumerate(names.groups)
        if group in groups or EVERYTHING in groups
        for language in spoken
        if names.captions[language][sprite]
    )


def known(what: str, asked: Sequence[Any], choices: Sequence[Any]) -> Sequence[Any]:
    """Return `asked`; raises UserError naming the choices if one of it is none of them."""
    for item in asked:
        if item not in choices:
            raise UserError(f"unknown {what} {item!r}; choose from: {' '.join(choices)}")
    return asked
