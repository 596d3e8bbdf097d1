"""Search over a folder of texts: Okapi BM25 (the library bm25s) over paragraphs.

What the report calls web search, without a web: an evaluation must find the same tomorrow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError

FILE_MAX = 2 * 2**20  #: bytes; larger files are left out
PASSAGE_MIN, PASSAGE_MAX = 20, 600  #: characters
FOUND_MAX = 3


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph and where it stands."""

    source: str
    text: str


class Index:
    """The paragraphs of a folder."""

    def __init__(self, passages: list[Passage]) -> None:
        """Index them. Raises UserError if there are none."""
        import bm25s

        if not passages:
            raise UserError("nothing to search: no .txt, .md or .rst with a paragraph of text")
        self._passages = passages
        self._index: Any = bm25s.BM25()
        self._index.index([words(one.text) for one in passages], show_progress=False)

    @classmethod
    def of(cls, folder: Path) -> Index:
        """Read a folder. Raises UserError if it is none, or empty."""
        if not folder.is_dir():
            raise UserError(f"--documents {folder}: there is no such folder")
        passages = []
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".txt", ".md", ".rst") and path.stat().st_size <= FILE_MAX:
                text = path.read_text("utf-8", "replace")
                source = path.relative_to(folder).as_posix()
                passages += [Passage(source, one) for one in _paragraphs(text)]
        return cls(passages)

    def find(self, query: str, count: int = FOUND_MAX) -> list[Passage]:
        """Return the passages that fit a query best, best first; none that shares no word."""
        asked = words(query)
        if not asked:
            return []
        count = min(count, len(self._passages))
        places, scores = self._index.retrieve([asked], k=count, show_progress=False)
        ranked = zip(places[0].tolist(), scores[0].tolist(), strict=True)
        return [self._passages[place] for place, score in ranked if score > 0.0]


def words(text: str) -> list[str]:
    """Return a text's words as they are compared."""
    return re.findall(r"\w+", text.casefold())


def _paragraphs(text: str) -> list[str]:
    pieces = (" ".join(piece.split()) for piece in re.split(r"\n\s*\n", text))
    return [piece[:PASSAGE_MAX] for piece in pieces if len(piece) >= PASSAGE_MIN]
