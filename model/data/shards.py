"""WebDataset-style tar shards, read at random through an index.

A folder holds one data class: `*.tar`, whose members `KEY.EXTENSION` make up sample KEY, and
`index.json`, which says where in which tar each member begins. Streaming readers see these tars as
usual; ours needs the index, since the order of samples is a function of the step and a restart must
find sample 48,211 without reading those before it.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.media.medium import BadSampleError
from orchestrator.errors import UserError

INDEX = "index.json"
VERSION = 1
PER_SHARD = 1_000  #: samples
MEMBER_MAX = 64 * 2**20  #: bytes of one file of a sample

Members = Mapping[str, bytes]  #: content by extension, "txt" or "jpg"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sample lies."""

    shard: str  #: file name of the tar
    key: str
    members: Mapping[str, tuple[int, int]]  #: first byte and length by extension


@dataclass(frozen=True)
class Shards:
    """An indexed folder."""

    folder: Path
    places: tuple[Place, ...]
    damaged: tuple[str, ...] = ()  #: tars that could not be read when the index was made, and why

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self.places)

    def read(self, number: int) -> dict[str, bytes]:
        """Return a sample's files by extension. Raises BadSampleError naming shard and key."""
        place = self.places[number]
        where = f"{self.folder / place.shard}, sample {place.key}"
        try:
            with (self.folder / place.shard).open("rb") as file:
                return {
                    extension: _exactly(file, start, length, f"{where}.{extension}")
                    for extension, (start, length) in place.members.items()
                }
        except OSError as error:
            raise BadSampleError("missing-shard", f"{where}: {error.strerror}") from error


def _exactly(file: io.BufferedReader, start: int, length: int, name: str) -> bytes:
    if length > MEMBER_MAX:
        raise BadSampleError("too-long", f"{name}: {length:,} bytes; at most {MEMBER_MAX:,}")
    file.seek(start)
    data = file.read(length)
    if len(data) != length:
        said = f"{name}: {len(data)} of {length} bytes; the tar is shorter than its index says"
        raise BadSampleError("short-shard", said)
    return data


def write(samples: Iterable[Members], folder: Path, per_shard: int = PER_SHARD) -> Shards:
    """Write samples into numbered tars and index them; equal samples give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tar: tarfile.TarFile | None = None
    for number, members in enumerate(samples):
        if number % per_shard == 0:
            if tar is not None:
                tar.close()
            tar = tarfile.open(folder / f"{number // per_shard:06d}.tar", "w")  # noqa: SIM115
        assert tar is not None
        for extension, data in members.items():
            header = tarfile.TarInfo(f"{number:09d}.{extension}")
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    if tar is not None:
        tar.close()
    return index(folder)


def index(folder: Path) -> Shards:
    """Read every tar once and write the index. A damaged tar is left out and named in it."""
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise UserError(f"{folder}: no *.tar in it; write shards there first")
    places: list[Place] = []
    damaged: list[str] = []
    for path in tars:
        try:
            places += _scan(path)
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            damaged.append(f"{path.name}: {str(error) or type(error).__name__}")
    shards = Shards(folder, tuple(places), tuple(damaged))
    _write_index(shards)
    return shards


def _scan(path: Path) -> list[Place]:
    if path.stat().st_size == 0:
        raise tarfile.ReadError("0 bytes")
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.isfile() and "." in Path(member.name).name:
                name = Path(member.name)
                members = found.setdefault(str(name.with_suffix("")), {})
                members[name.suffix[1:].lower()] = (member.offset_data, member.size)
    return [Place(path.name, key, members) for key, members in found.items()]


def _write_index(shards: Shards) -> None:
    rows = [[place.shard, place.key, place.members] for place in shards.places]
    whole = {"version": VERSION, "damaged": shards.damaged, "samples": rows}
    temporary = shards.folder / f".{INDEX}.{os.getpid()}"
    temporary.write_text(json.dumps(whole))
    temporary.replace(shards.folder / INDEX)


def load(folder: Path) -> Shards:
    """Read an index. Raises UserError saying what is wrong with it and how to make one."""
    path = folder / INDEX
    how = f"make it with: python -m model shards index {folder}"
    try:
        whole: dict[str, Any] = json.loads(path.read_text())
        if whole["version"] != VERSION:
            raise UserError(f"{path}: version {whole['version']}, expected {VERSION}; {how}")
        places = tuple(_place(*row) for row in whole["samples"])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {how}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: no index of shards ({error}); {how}") from error
    if not places:
        raise UserError(
            f"{path}: no samples; damaged tars: {'; '.join(whole['damaged']) or 'none'}"
        )
    return Shards(folder, places, tuple(whole["damaged"]))


def _place(shard: Any, key: Any, members: Any) -> Place:
    """Return a row of the index. Raises ValueError or TypeError for what no index says."""
    if Path(shard).name != shard:
        raise ValueError(f"{shard!r} is no file of this folder")
    found = {str(name): (int(at), int(size)) for name, (at, size) in members.items()}
    if any(at < 0 or size < 0 for at, size in found.values()):
        raise ValueError(f"{shard}, {key}: a member before the beginning")
    return Place(shard, str(key), found)
