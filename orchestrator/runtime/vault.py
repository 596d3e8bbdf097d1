"""The vault: checkpoints as named parts, visible only by their commit record.

A save puts its parts (hashed first), then its manifest, and last of all one commit record into
the register. Whatever dies in between leaves invisible bytes that `retention.py` sweeps later.
A vault may have replicas: other stores that hold the same keys. They are only read, where the first
store has not what was committed; the register says what that is, so it does not matter who answers.
`training.py` and `dcp.py` write and read through this module; the command line lists and
verifies with the functions at its end. No torch here: parts are opaque.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from orchestrator.errors import PermanentError, TransientError, UserError
from orchestrator.runtime import manifests
from orchestrator.runtime.lineage import Commit, Lineage, Void
from orchestrator.runtime.manifests import BadManifestError, Manifest, Part
from orchestrator.runtime.register import Overtaken, Register, new_nonce
from orchestrator.runtime.store import CHUNK_BYTES, Bytes, MissingKeyError, Store, open_store

T = TypeVar("T")
OVERTAKEN_MAX = 100  #: times one commit thinks again before it gives up


class FencedError(PermanentError):
    """Another attempt or generation rules: this writer stops for good."""

    exit_code = 93


class VerificationError(PermanentError):
    """A checkpoint is not what its commit record says."""

    exit_code = 92

    def __init__(
        self, commit: int | None, problems: tuple[str, ...], *, pruned: bool = False
    ) -> None:
        """Say which commit (its seq) failed, every problem found, and if it was only pruned."""
        super().__init__(f"commit {commit} did not verify: " + "; ".join(problems))
        self.commit = commit
        self.problems = problems
        self.pruned = pruned

    def __reduce__(self) -> tuple[Any, ...]:
        """Let ranks send it to each other."""
        return (VerificationError, (self.commit, self.problems))


@dataclass(frozen=True)
class Report:
    """What verification found of one commit."""

    seq: int
    step: int
    ok: bool
    problems: tuple[str, ...] = ()
    pruned: bool = False  #: retention removed its manifest; nothing is wrong with the store
    parts: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Row:
    """One commit record for a list."""

    seq: int
    step: int
    attempt: int | None
    under: int
    parent: int | None
    counts: bool
    reason: str  #: why it does not count
    state: str  #: "present", "pruned" or "damaged" (its manifest; parts are not read)
    layout: str
    world_size: int | None
    bytes: int
    at: float
    by: str


def of_the_first(stores: Sequence[Store], take: Callable[[Store], T]) -> T:
    """Return what the first store gives that has it whole.

    Raises `VerificationError` with what is wrong in each; `TransientError` if the first store does
    not answer and no replica has it: then nothing is known to be damaged.
    """
    failed: VerificationError | None = None
    away: TransientError | None = None
    problems: list[str] = []
    for number, store in enumerate(stores):
        where = f"{store.place}: " if number else ""
        try:
            return take(store)
        except VerificationError as error:
            failed = failed or error
            problems += [f"{where}{problem}" for problem in error.problems]
        except TransientError as error:
            if number == 0:
                away = error
            problems.append(f"{where}{error}")
    if away is not None:
        raise away
    assert failed is not None  # a first store that neither failed nor was away gave it
    raise VerificationError(failed.commit, tuple(problems), pruned=failed.pruned)


class Checkpoint:
    """One commit whose manifest was verified; parts are verified as they are read."""

    def __init__(
        self, store: Store, commit: Commit, manifest: Manifest, replicas: Sequence[Store] = ()
    ) -> None:
        """Hold what `Vault.open` found."""
        self._store, self._stores = store, (store, *replicas)
        self.commit = commit
        self.manifest = manifest

    def read(self, part: Part) -> bytes:
        """Return a part's bytes; raises `VerificationError` unless they hash as they should."""
        return of_the_first(self._stores, lambda store: self._read(store, part))

    def _read(self, store: Store, part: Part) -> bytes:
        problem = self.size_problem(part, store)
        if problem is None:
            try:
                data = store.get_range(part.key, 0, part.bytes)
            except MissingKeyError:
                problem = f"part {part.key} is missing"
            else:
                if len(data) == part.bytes and manifests.sha256(data) == part.sha256:
                    return data
                problem = f"part {part.key} has other bytes than were written"
        raise VerificationError(self.commit.seq, (problem,))

    def check_sizes(self) -> None:
        """Raise `VerificationError` unless each part is somewhere with the right size."""
        problems: list[str] = []
        for part in self.manifest.parts:
            try:
                of_the_first(self._stores, partial(self._check, part))
            except VerificationError as error:
                problems += error.problems
        if problems:
            raise VerificationError(self.commit.seq, tuple(problems))

    def _check(self, part: Part, store: Store) -> None:
        problem = self.size_problem(part, store)
        if problem is not None:
            raise VerificationError(self.commit.seq, (problem,))

    def problems(self) -> Iterator[str]:
        """Read every part in the first store in pieces and yield what is wrong with it."""
        for part in self.manifest.parts:
            problem = self.size_problem(part) or self._hash_problem(part)
            if problem is not None:
                yield problem

    def size_problem(self, part: Part, store: Store | None = None) -> str | None:
        """Say what is wrong with a part as far as can be seen without reading it."""
        found = (store or self._store).stat(part.key)
        if found is None:
            return f"part {part.key} is missing"
        if found.size_bytes != part.bytes:
            return f"part {part.key} has {found.size_bytes} bytes instead of {part.bytes}"
        return None

    def _hash_problem(self, part: Part) -> str | None:
        digest = hashlib.sha256()
        try:
            for start in range(0, part.bytes, CHUNK_BYTES):
                length = min(CHUNK_BYTES, part.bytes - start)
                digest.update(self._store.get_range(part.key, start, length))
        except MissingKeyError:
            return f"part {part.key} is missing"
        if digest.hexdigest() != part.sha256:
            return f"part {part.key} has other bytes than were written"
        return None


class Vault:
    """The checkpoints of one run: bulk data in `store`, their order in `register`.

    What is read may also come from a replica; what is written or judged is the first store's.
    """

    def __init__(self, store: Store, register: Register, replicas: Sequence[Store] = ()) -> None:
        """Remember them; nothing is read yet."""
        self.store = store
        self.register = register
        self.replicas = tuple(replicas)

    @property
    def place(self) -> str:
        """Where this vault is, for people."""
        return self.store.place

    def put(self, save: str, kind: str, rank: int, data: Bytes) -> Part:
        """Hash one part, then copy it into the vault; it stays invisible until the commit."""
        key = manifests.part_key(save, kind, rank)
        size = memoryview(data).nbytes
        part = Part(rank=rank, kind=kind, key=key, bytes=size, sha256=manifests.sha256(data))
        self.store.put_part(key, data)
        return part

    def open(self, commit: Commit) -> Checkpoint:
        """Verify the manifest of a commit, and that its parts are there with the right sizes.

        Each may be in any of the stores. Raises `VerificationError`; `Checkpoint.read` verifies the
        bytes.
        """
        stores = (self.store, *self.replicas)
        manifest = of_the_first(stores, lambda store: self.manifest(commit, store))
        checkpoint = Checkpoint(self.store, commit, manifest, self.replicas)
        checkpoint.check_sizes()
        return checkpoint

    def manifest(self, commit: Commit, store: Store | None = None) -> Manifest:
        """Return a commit's manifest; raises `VerificationError` if it is not the one committed."""
        self.store.must_exist()  # or there were no such commit
        try:
            data = (store or self.store).get_range(commit.manifest, 0, manifests.MANIFEST_BYTES_MAX)
            if manifests.sha256(data) != commit.digest:
                raise BadManifestError("the manifest has other bytes than were committed")
            manifest = manifests.decode(data)
        except MissingKeyError as error:
            missing = ("the manifest is missing",)
            raise VerificationError(commit.seq, missing, pruned=True) from error
        except PermanentError as error:
            raise VerificationError(commit.seq, (str(error),)) from error
        problems = tuple(self._contradictions(commit, manifest))
        if problems:
            raise VerificationError(commit.seq, problems)
        return manifest

    def _contradictions(self, commit: Commit, manifest: Manifest) -> Iterator[str]:
        said: tuple[tuple[str, Any, Any], ...] = (
            ("manifest", commit.manifest, manifest.key),
            ("step", commit.step, manifest.step),
            ("parent", commit.parent, manifest.parent),
            ("generation", commit.under, manifest.generation),
        )
        for name, expected, found in said:
            if expected != found:
                yield f"{name}: the commit says {expected!r}, the manifest {found!r}"

    def verify(self, commit: Commit) -> Report:
        """Read a whole checkpoint and report what is wrong with it; never raises for damage."""
        try:
            manifest = self.manifest(commit)
        except VerificationError as error:
            return Report(commit.seq, commit.step, False, error.problems, error.pruned)
        problems = tuple(Checkpoint(self.store, commit, manifest).problems())
        return Report(
            seq=commit.seq,
            step=commit.step,
            ok=not problems,
            problems=problems,
            parts=len(manifest.parts),
            bytes=manifest.size_bytes,
        )

    def fall_back(self, lineage: Lineage, commit: Commit | None) -> Commit | None:
        """Return the first of this commit, its parent, its parent's parent... that verifies."""
        while commit is not None and not self.verify(commit).ok:
            commit = lineage.commit(commit.parent)
        return commit


class Committer:
    """Makes checkpoints visible, as long as its own generation rules."""

    def __init__(
        self,
        vault: Vault,
        *,
        under: int,
        by: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`under` is the seq of the writer's generation (or fence, where there is no gang)."""
        self._vault = vault
        self._under = under
        self._by = by
        self._clock = clock
        self._fenced: str | None = None

    def check(self, lineage: Lineage) -> None:
        """Raise `FencedError`, now and for ever after, if this writer's generation is over."""
        if self._fenced is None and lineage.ruler != self._under:
            self._fenced = f"record {lineage.ruler} rules, not {self._under}"
        if self._fenced is not None:
            raise FencedError(f"register at {self._vault.register.place}: {self._fenced}")

    def commit(self, manifest: Manifest) -> Commit:
        """Write the manifest and the record that makes it visible; its parts must be there.

        Raises `FencedError` at a counted fence or generation that does not include this writer,
        `TransientError` if a store does not take the manifest or the record.
        """
        lineage = self._vault.register.read()
        self.check(lineage)
        data = manifests.encode(manifest)
        manifests.decode(data)  # never commit what no reader would accept
        self._check_parts(manifest)
        if not self._vault.store.put_exclusive(manifest.key, data):
            raise PermanentError(f"{self._vault.place}: save {manifest.save} exists already")
        digest = manifests.sha256(data)
        nonce, at = new_nonce(), self._clock()

        def record(seq: int) -> Commit:
            return Commit(
                seq=seq,
                nonce=nonce,
                under=self._under,
                step=manifest.step,
                parent=manifest.parent,
                manifest=manifest.key,
                digest=digest,
                at=at,
                by=self._by,
            )

        for _ in range(OVERTAKEN_MAX):
            outcome = self._vault.register.append(record, lineage)
            if isinstance(outcome, Commit):
                return outcome
            if isinstance(outcome, Overtaken):
                lineage = outcome.lineage
            self.check(lineage)
        raise TransientError(f"register at {self._vault.register.place}: overtaken too often")

    def _check_parts(self, manifest: Manifest) -> None:
        for part in manifest.parts:
            found = self._vault.store.stat(part.key)
            if found is None or found.size_bytes != part.bytes:
                raise PermanentError(f"{self._vault.place}: part {part.key} is not there whole")


def open_vault(
    url: str,
    register: str | None = None,
    *,
    begun: bool = False,
    replicas: Sequence[str] = (),
) -> Vault:
    """Return the vault at a URL; its register lies there too unless another URL is given.

    Where the run has `begun`, its register exists: somebody has granted this generation in it.
    `replicas` are URLs of stores with the same keys, which are read where the first fails.
    """
    store = open_store(url, exists=begun and not register)
    where = Register(open_store(register, exists=begun) if register else store)
    return Vault(store, where, [open_store(replica) for replica in replicas])


def list_commits(url: str, register: str | None = None) -> tuple[Row, ...]:
    """Return a row for each commit record, oldest first, also of those that do not count."""
    vault = open_vault(url, register)
    lineage = _read_existing(vault)
    void = [v for v in lineage.void if isinstance(v.record, Commit)]
    rows = [_row(vault, commit, None) for commit in lineage.commits]
    rows += [_row(vault, v.record, v) for v in void if isinstance(v.record, Commit)]
    return tuple(sorted(rows, key=lambda row: row.seq))


def verify(url: str, seq: int | None = None, register: str | None = None) -> tuple[Report, ...]:
    """Verify one counted commit, or every one that is not pruned; oldest first.

    Raises `UserError` if there is no register, or no counted commit with this seq.
    """
    vault = open_vault(url, register)
    lineage = _read_existing(vault)
    if seq is None:
        reports = map(vault.verify, lineage.commits)
        return tuple(report for report in reports if not report.pruned)
    commit = lineage.commit(seq)
    if commit is None:
        raise UserError(f"no counted commit {seq} in the register at {vault.register.place}")
    return (vault.verify(commit),)


def _read_existing(vault: Vault) -> Lineage:
    lineage = vault.register.read()
    if lineage.next_seq == 1:
        raise UserError(f"no commit register at {vault.register.place}")
    return lineage


def _row(vault: Vault, commit: Commit, void: Void | None) -> Row:
    manifest, state = None, "present"
    try:
        manifest = vault.manifest(commit)
    except VerificationError as error:
        state = "pruned" if error.pruned else "damaged"
    return Row(
        seq=commit.seq,
        step=commit.step,
        attempt=_attempt(commit),
        under=commit.under,
        parent=commit.parent,
        counts=void is None,
        reason="" if void is None else void.reason,
        state=state,
        layout="" if manifest is None else manifest.layout.value,
        world_size=None if manifest is None else manifest.world_size,
        bytes=0 if manifest is None else manifest.size_bytes,
        at=commit.at,
        by=commit.by,
    )


def _attempt(commit: Commit) -> int | None:
    try:
        return manifests.attempt_of(manifests.save_of(commit.manifest))
    except IndexError:  # a manifest's key that is none of ours
        return None
