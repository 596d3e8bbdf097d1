"""The manifest of a checkpoint: its named parts, and what the live state must equal after a resume.

A manifest is one JSON object in the vault; its SHA-256 stands in the commit record that makes the
checkpoint visible. Parts are opaque here. Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from orchestrator.errors import PermanentError
from orchestrator.runtime.store import Bytes, check_key

VERSION = 1  #: of the manifest's wire format
MANIFEST_BYTES_MAX = 64 * 1024 * 1024  #: about 200,000 parts
PARTS_PREFIX = "parts/"
MANIFESTS_PREFIX = "manifests/"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SAVE = re.compile(r"(\d{4,})-(\d{8,})-(\d{8,})-([0-9a-f]{8,64})")
_KIND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


class BadManifestError(PermanentError):
    """Bytes that are not a manifest of a known version."""


class AttestationError(PermanentError):
    """The live state after a resume is not the state that was saved."""


class Layout(str, Enum):
    """How the state is spread over the parts."""

    REPLICATED = "replicated"  #: every rank holds all of it; rank 0 wrote it
    SHARDED = "sharded"  #: every rank wrote its share


@dataclass(frozen=True)
class Part:
    """One named part. The hash was computed before anything was copied."""

    rank: int
    kind: str
    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Attestation:
    """Six facts of the live state, for comparison after a resume (torchtitan #4598)."""

    step: int  #: steps completed
    learning_rate: float  #: that the next step will use
    rng: str  #: SHA-256 of the random number generators' states
    tokens: int  #: consumed in all
    cursor: Any  #: position in the data, as plain JSON
    config: str  #: SHA-256 of the configuration

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Attestation:
        """Make one from live values: `rng` and `config` are hashed, `cursor` made plain."""
        return cls(
            step=int(facts["step"]),
            learning_rate=float(facts["learning_rate"]),
            rng=digest_of(facts["rng"]),
            tokens=int(facts["tokens"]),
            cursor=plain(facts["cursor"]),
            config=digest_of(facts["config"]),
        )

    def compare(self, live: Attestation) -> None:
        """Raise `AttestationError` naming each field in which `live` differs."""
        wrong = []
        for one in fields(self):
            saved, found = getattr(self, one.name), getattr(live, one.name)
            if not _same(saved, found):
                wrong.append(f"{one.name}: expected {saved!r}, found {found!r}")
        if wrong:
            raise AttestationError(
                "the resumed state differs from its manifest: " + "; ".join(wrong)
            )


@dataclass(frozen=True)
class Manifest:
    """Everything that a resume needs to know of one checkpoint."""

    run: str  #: the job
    attempt: int
    generation: int  #: seq of the record that its commit is under
    step: int
    layout: Layout
    world_size: int
    parent: int | None  #: seq of the commit this state descends from
    parts: tuple[Part, ...]
    attestation: Attestation
    save: str  #: names its folder of parts; new for each save
    written_at: float  #: epoch seconds on the writer's clock; for people

    @property
    def key(self) -> str:
        """Where the manifest lies in the vault."""
        return f"{MANIFESTS_PREFIX}{self.save}.json"

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)

    def part(self, kind: str, rank: int = 0) -> Part | None:
        """Return the part of this kind and rank."""
        return next((p for p in self.parts if (p.kind, p.rank) == (kind, rank)), None)


def save_name(*, attempt: int, generation: int, step: int, nonce: str) -> str:
    """Return the name of one save: never used before, because of the nonce."""
    return f"{attempt:04d}-{generation:08d}-{step:08d}-{nonce}"


def attempt_of(save: str) -> int | None:
    """Return the attempt that a save's name tells; None if it is not one of ours."""
    name = _SAVE.fullmatch(save)
    return int(name[1]) if name else None


def save_of(key: str) -> str:
    """Return the save that a part's or manifest's key belongs to."""
    return key.split("/")[1].partition(".json")[0]


def part_key(save: str, kind: str, rank: int) -> str:
    """Return the key of a part; raises `BadManifestError` on a kind that is not a plain name."""
    if not _KIND.fullmatch(kind):
        raise BadManifestError(f"not a kind of part: {kind!r} (letters, digits, _ and - only)")
    return f"{PARTS_PREFIX}{save}/{kind}.{rank:05d}"


def sha256(data: Bytes) -> str:
    """Return the SHA-256 of some bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's wire form: one JSON object, sorted keys, a newline."""
    body = {"version": VERSION, **asdict(manifest), "layout": manifest.layout.value}
    return (json.dumps(body, sort_keys=True, ensure_ascii=False) + "\n").encode()


def decode(data: bytes) -> Manifest:
    """Read a manifest; raises `BadManifestError` if it is not one, or names parts of others."""
    try:
        body = json.loads(data)
        version = body.pop("version")
        if version != VERSION:
            raise BadManifestError(f"manifest of version {version}; this program reads {VERSION}")
        body["layout"] = Layout(body["layout"])
        body["attestation"] = Attestation(**body["attestation"])
        body["parts"] = tuple(Part(**part) for part in body["parts"])
        manifest = Manifest(**body)
        objection = _objection(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadManifestError(f"manifest cannot be read: {error!r}") from error
    if objection is not None:
        raise BadManifestError(f"manifest {manifest.save}: {objection}")
    return manifest


def _objection(manifest: Manifest) -> str | None:
    """Say what makes a manifest unfit to be followed; None if nothing does."""
    if not _SAVE.fullmatch(manifest.save):
        return "not a save's name"
    names = [(part.kind, part.rank) for part in manifest.parts]
    if len(set(names)) != len(names):
        return "the same part twice"
    for part in manifest.parts:
        if part.key != part_key(manifest.save, part.kind, part.rank):
            return f"part {part.key!r} is not one of this save"
        if type(part.bytes) is not int or part.bytes < 0 or not _DIGEST.fullmatch(part.sha256):
            return f"part {part.key!r}: size or hash is not one"
        check_key(part.key)
    return None


def plain(value: Any) -> Any:
    """Return a value as plain JSON types: tuples become lists, keys text, raw bytes their hash.

    Tensors and arrays are replaced by dtype, shape and hash. Raises `TypeError` on anything else.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"sha256": sha256(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [
            plain(item)
            for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)
        ]
    if hasattr(value, "tolist"):  # a tensor or an array, without importing either's library
        shape = list(getattr(value, "shape", ()))
        digest = sha256(json.dumps(value.tolist()).encode())
        return {"dtype": str(getattr(value, "dtype", "")), "shape": shape, "sha256": digest}
    raise TypeError(f"cannot attest a {type(value).__name__}; give plain values, bytes or tensors")


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON; two equal values have the same digest."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
    return sha256(text.encode())


def _same(saved: Any, found: Any) -> bool:
    if isinstance(saved, float) and isinstance(found, float):
        return math.isclose(saved, found, rel_tol=1e-9) or (math.isnan(saved) and math.isnan(found))
    return bool(saved == found)
