"""What may be removed from a vault: parts and manifests of old checkpoints, never a record.

Kept are the last K commits *that verified* and everything newer, the head and its parents down to
K that verified, and whatever a live resume reads. Bytes that no counted commit names are removed
once they are old, or at once if they belong to an attempt that a fence has ended.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from orchestrator.runtime.lineage import Commit, Lineage
from orchestrator.runtime.manifests import MANIFESTS_PREFIX, PARTS_PREFIX, attempt_of, save_of
from orchestrator.runtime.vault import Committer, Vault

UNCOMMITTED_AGE_S = 3600.0  #: a save whose newest byte is older was given up


class Keeper:
    """Prunes one vault again and again; remembers what it verified."""

    def __init__(
        self,
        keep: int,
        *,
        clock: Callable[[], float] = time.time,
        verify: Callable[[Vault, Commit], bool] = lambda vault, commit: vault.verify(commit).ok,
    ) -> None:
        """`keep` is K, at least 1. `clock` only ages uncommitted bytes; `verify` is asked once."""
        if keep < 1:
            raise ValueError(f"keep {keep}: at least one checkpoint has to stay")
        self._keep = keep
        self._clock = clock
        self._is_whole = verify
        self._verified: dict[int, bool] = {}

    def prune(self, vault: Vault, committer: Committer) -> tuple[str, ...]:
        """Remove what is not needed; return the saves removed.

        Raises `FencedError` if the writer's generation is over: only the ruling one removes.
        """
        lineage = vault.register.read()
        committer.check(lineage)
        kept = self.kept(vault, lineage)
        removable = self._removable(vault, lineage, kept)
        for save, keys in removable.items():
            del save
            for key in sorted(keys):  # `manifests/` first: pruned, not damaged, if we die here
                vault.store.delete(key)
        return tuple(removable)

    def kept(self, vault: Vault, lineage: Lineage) -> frozenset[str]:
        """Return the saves that stay, whatever happens."""
        head = lineage.head
        chains = [reversed(lineage.commits), _ancestors(lineage, head)]
        if lineage.latest is not None:
            chains.append(_ancestors(lineage, lineage.commit(lineage.latest.resume)))
        return frozenset(save_of(c.manifest) for chain in chains for c in self._until(vault, chain))

    def _until(self, vault: Vault, commits: Iterable[Commit]) -> Iterator[Commit]:
        """Yield commits, newest first, up to the K-th that verifies."""
        verified = 0
        for commit in commits:
            yield commit
            verified += self._verify(vault, commit)
            if verified == self._keep:
                return

    def _verify(self, vault: Vault, commit: Commit) -> bool:
        if commit.seq not in self._verified:
            self._verified[commit.seq] = self._is_whole(vault, commit)
        return self._verified[commit.seq]

    def _removable(
        self, vault: Vault, lineage: Lineage, kept: frozenset[str]
    ) -> dict[str, list[str]]:
        counted = {save_of(commit.manifest) for commit in lineage.commits}
        found: dict[str, list[str]] = {}
        for prefix in (MANIFESTS_PREFIX, PARTS_PREFIX):
            for key in vault.store.list(prefix):
                found.setdefault(save_of(key), []).append(key)
        return {
            save: keys
            for save, keys in found.items()
            if save not in kept
            and attempt_of(save) is not None
            and (save in counted or self._given_up(vault, lineage, save, keys))
        }

    def _given_up(self, vault: Vault, lineage: Lineage, save: str, keys: list[str]) -> bool:
        """Say whether uncommitted bytes belong to nobody any more."""
        attempt = attempt_of(save)
        if attempt is not None and attempt < lineage.attempt:
            return True
        stats = (vault.store.stat(key) for key in keys)
        newest = max((stat.written_at for stat in stats if stat is not None), default=0.0)
        return newest < self._clock() - UNCOMMITTED_AGE_S


def _ancestors(lineage: Lineage, commit: Commit | None) -> Iterator[Commit]:
    while commit is not None:
        yield commit
        commit = lineage.commit(commit.parent)
