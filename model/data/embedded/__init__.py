"""Emoji sprites, captions in 32 languages and a BPE, made by the scripts in `tools/`.

The art is Apache-2.0 (Noto Emoji), the captions are Unicode's: the LICENSE files are beside this.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from orchestrator.errors import PermanentError

HERE = Path(__file__).parent


def read_embedded(name: str) -> bytes:
    """Return a file of this directory; raises PermanentError if it is not the one committed."""
    data = (HERE / name).read_bytes()
    found, expected = hashlib.sha256(data).hexdigest(), sums()[name]
    if found != expected:
        raise PermanentError(f"{HERE / name}: SHA-256 {found}, expected {expected}")
    return data


def sums() -> dict[str, str]:
    """Return the SHA-256 that each file must have."""
    lines = (HERE / "sha256.txt").read_text().splitlines()
    return {name: digest for digest, name in map(str.split, lines)}
