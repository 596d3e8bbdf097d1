"""The index of a sharded checkpoint: which tensor lies where, as JSON.

torch's own `.metadata` is a pickle, which runs code when it is read. This holds the same facts as
plain data, so that an index can be read by anything and trusted no further than it was verified.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from orchestrator.errors import PermanentError

VERSION = 1  #: of the index's wire format


class BadIndexError(PermanentError):
    """Bytes that are not an index of a known version."""


@dataclass(frozen=True)
class Slice:
    """Where one item lies: `length` bytes from `start` of the part with this key."""

    part: str
    start: int
    length: int


def encode(metadata: Metadata) -> bytes:
    """Return the wire form of an index whose `storage_data` maps to `Slice`s."""
    slices: Mapping[MetadataIndex, Slice] = metadata.storage_data
    body = {
        "version": VERSION,
        "items": {name: _describe(one) for name, one in metadata.state_dict_metadata.items()},
        "paths": {name: list(path) for name, path in (metadata.planner_data or {}).items()},
        "slices": [
            {
                "name": index.fqn,
                "offset": None if index.offset is None else list(index.offset),
                "part": where.part,
                "start": where.start,
                "length": where.length,
            }
            for index, where in slices.items()
        ],
    }
    return json.dumps(body, sort_keys=True).encode()


def _describe(item: TensorStorageMetadata | BytesStorageMetadata) -> dict[str, Any]:
    if isinstance(item, BytesStorageMetadata):
        return {"bytes": True}
    return {
        "dtype": str(item.properties.dtype).removeprefix("torch."),
        "size": list(item.size),
        "chunks": [[list(chunk.offsets), list(chunk.sizes)] for chunk in item.chunks],
    }


def decode(data: bytes) -> Metadata:
    """Read an index; raises `BadIndexError` if it is not one of a known version."""
    try:
        body = json.loads(data)
        if body["version"] != VERSION:
            raise BadIndexError(f"index of version {body['version']}; this reads {VERSION}")
        slices = {
            MetadataIndex(one["name"], one["offset"]): Slice(
                one["part"], int(one["start"]), int(one["length"])
            )
            for one in body["slices"]
        }
        return Metadata(
            state_dict_metadata={name: _item(one) for name, one in body["items"].items()},
            planner_data={name: tuple(path) for name, path in body["paths"].items()},
            storage_data=slices,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadIndexError(f"index cannot be read: {error!r}") from error


def _item(body: Mapping[str, Any]) -> TensorStorageMetadata | BytesStorageMetadata:
    if body.get("bytes"):
        return BytesStorageMetadata()
    dtype = getattr(torch, body["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise BadIndexError(f"not a dtype: {body['dtype']!r}")
    return TensorStorageMetadata(
        properties=TensorProperties(dtype=dtype),
        size=torch.Size(body["size"]),
        chunks=[
            ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=torch.Size(sizes))
            for offsets, sizes in body["chunks"]
        ],
    )
