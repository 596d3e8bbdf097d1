"""The weights digest: one SHA-256 that two runs share exactly if they trained the same weights.

Over the full tensors sorted by name: the name, a zero byte, the dtype (`float32`), a zero byte, the
shape (`2,3`, empty for a scalar), a zero byte, then the raw bytes, contiguous and little-endian.
docs/checkpoints.md gives ten lines of Python that compute it from outside.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.runtime import snapshots
from orchestrator.runtime.lineage import Commit
from orchestrator.runtime.manifests import Layout
from orchestrator.runtime.vault import Checkpoint, Vault, VerificationError, open_vault

if TYPE_CHECKING:
    import torch

KIND = "model"  #: the part, or the top-level key, that holds the weights


def digest(tensors: Mapping[str, Any]) -> str:
    """Return the digest of a state dict; nested names are joined by dots, non-tensors left out."""
    total = hashlib.sha256()
    for name, tensor in sorted(_flat(tensors, "")):
        shape = ",".join(map(str, tensor.shape))
        dtype = str(tensor.dtype).removeprefix("torch.")
        total.update(f"{name}\0{dtype}\0{shape}\0".encode())
        total.update(raw(tensor))
    return total.hexdigest()


def weights_digest(url: str, seq: int | None = None, register: str | None = None) -> str:
    """Return the weights digest of a commit in a vault, the head unless `seq` is given.

    Raises `UserError` if there is no such commit, `VerificationError` if it is damaged.
    """
    vault = open_vault(url, register)
    lineage = vault.register.read()
    commit = lineage.head if seq is None else lineage.commit(seq)
    if commit is None:
        wanted = "no commit that counts" if seq is None else f"no counted commit {seq}"
        raise UserError(f"{wanted} in the register at {vault.register.place}")
    return commit_digest(vault, commit)


def commit_digest(vault: Vault, commit: Commit) -> str:
    """Return the weights digest of one commit, whatever its layout."""
    checkpoint = vault.open(commit)
    if checkpoint.manifest.layout is Layout.SHARDED:
        from orchestrator.runtime import dcp

        return digest(dcp.full_tensors(checkpoint, KIND))
    return digest(_replicated(checkpoint))


def _replicated(checkpoint: Checkpoint) -> Mapping[str, Any]:
    part = checkpoint.manifest.part(KIND)
    if part is None:
        raise UserError(f"commit {checkpoint.commit.seq} has no part of kind {KIND!r}")
    data = checkpoint.read(part)
    try:
        loaded: Mapping[str, Any] = snapshots.from_bytes(data)
    except snapshots.BadStateError as error:
        raise VerificationError(checkpoint.commit.seq, (f"{KIND}: {error}",)) from error
    return loaded


def _flat(tensors: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    for name, value in tensors.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")


def raw(tensor: torch.Tensor) -> bytes:
    """Return a tensor's bytes, contiguous, in this machine's (little-endian) order; no numpy."""
    whole = tensor.detach().cpu().contiguous()
    size = whole.numel() * whole.element_size()
    return ctypes.string_at(whole.data_ptr(), size) if size else b""
