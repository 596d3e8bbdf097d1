"""What ranks of one attempt wrote on this node, told in pieces to whoever asks over a transport.

The request and the answer are JSON. One answer holds at most `ANSWER_BYTES` of all logs together:
who wants more asks again, from where it stopped.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime.place import Place

ANSWER_BYTES = 1_500_000  #: of logs in one answer; base64 makes it 2 MB
LOGS_MAX = 10_000  #: files that one answer may name
NAME = re.compile(r"g(\d{1,9})\.r(\d{1,9})\.log")

Which = tuple[int, int]  #: generation, rank


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one rank's log, `data` from byte `at`; `size` is that of the whole file."""

    generation: int
    rank: int
    size: int
    at: int = 0
    data: bytes = b""


def tell(place: Place, wanted: Mapping[Which, int] | None) -> dict[str, Any]:
    """Return every log and its size, or of those `wanted` what is there from a byte on.

    An offset below zero counts from the end; one beyond the end means the file is another one now:
    then it is told from its beginning.
    """
    files = {
        (int(name[1]), int(name[2])): path
        for path in place.logs.glob("g*.r*.log")
        if (name := NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink()
    }
    if wanted is None:
        chosen = dict.fromkeys(sorted(files)[-LOGS_MAX:])
        return {"logs": [_plain(_size(files[one], one)) for one in chosen]}
    mine = {one: at for one, at in wanted.items() if one in files}
    share = ANSWER_BYTES // max(1, len(mine))
    return {"logs": [_plain(_read(files[one], one, at, share)) for one, at in mine.items()]}


def request(wanted: Mapping[Which, int] | None) -> dict[str, Any]:
    """Return the JSON of a request."""
    if wanted is None:
        return {"wanted": None}
    return {"wanted": [[generation, rank, at] for (generation, rank), at in wanted.items()]}


def asked(body: Any) -> dict[Which, int] | None:
    """Read a request; raises `PermanentError` if it is none."""
    try:
        rows = body["wanted"]
        return None if rows is None else {(int(g), int(r)): int(at) for g, r, at in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise PermanentError(f"no request for logs: {error}") from error


def heard(body: Any) -> list[Piece]:
    """Read an answer, which may be anything; raises `TransientError` if it is none."""
    try:
        return [_piece(row) for row in body["logs"][:LOGS_MAX]]
    except (KeyError, TypeError, ValueError) as error:
        raise TransientError(f"no answer about logs: {error}") from error


def _piece(row: Mapping[str, Any]) -> Piece:
    generation, rank, size, at = (row[key] for key in ("generation", "rank", "size", "at"))
    for number in (generation, rank, size, at):
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r:.40} is no count")
    return Piece(generation, rank, size, at, base64.b64decode(row["data"], validate=True))


def _plain(piece: Piece) -> dict[str, Any]:
    return {
        "generation": piece.generation,
        "rank": piece.rank,
        "size": piece.size,
        "at": piece.at,
        "data": base64.b64encode(piece.data).decode(),
    }


def _size(path: Path, one: Which) -> Piece:
    return Piece(*one, size=path.stat().st_size)


def _read(path: Path, one: Which, at: int, most: int) -> Piece:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = max(0, size + at) if at < 0 else at if at <= size else 0
        start = max(start, size - most) if at < 0 else start
        file.seek(start)
        return Piece(*one, size=size, at=start, data=file.read(most))
