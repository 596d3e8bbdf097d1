"""The small API that any training script can use: resume, heartbeat, save.

    run = training.join()
    loaded = run.resume()                  # verified; None at the very beginning
    ...
    run.heartbeat(step, loss)              # after each step
    run.save(step, state, learning_rate=..., tokens=..., cursor=..., config=..., rng=...)
    run.close()

It works under Holdfast, under torchrun and alone. Under Holdfast the environment names the vault,
the commit to resume from and the generation whose checkpoints count. Alone, a run that saves
opens an attempt of its own in the register, so that of two runs on one vault the newer wins.

torch is imported only when a state is saved or loaded. Python 3.10.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from orchestrator.errors import HoldfastError, PermanentError, TransientError, UserError
from orchestrator.runtime import manifests, retention, snapshots, surroundings
from orchestrator.runtime.heartbeats import Heart
from orchestrator.runtime.lineage import Commit, Fence, Lineage
from orchestrator.runtime.manifests import Attestation, AttestationError, Layout, Manifest, Part
from orchestrator.runtime.register import new_nonce
from orchestrator.runtime.saving import Saver, SaveTimes
from orchestrator.runtime.segments import Segments
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.runtime.vault import (
    Checkpoint,
    Committer,
    FencedError,
    Vault,
    VerificationError,
    open_vault,
)

if TYPE_CHECKING:
    from orchestrator.runtime.steady import Steady

__all__ = ["AttestationError", "Loaded", "Run", "join"]

LOG = logging.getLogger(__name__)
T = TypeVar("T")
KEEP = 3  #: verified checkpoints that retention leaves
WAIT_MAX_S = 300.0  #: a save waits so long for the one before, then is skipped
CLOSE_MAX_S = 600.0  #: the end of a run waits so long for the last save


@dataclass(frozen=True)
class Loaded:
    """What `Run.resume` found: a verified state and what was attested of it."""

    step: int
    state: dict[str, Any]
    attestation: Attestation


@dataclass
class _Authority:
    """In whose name a rank commits; another generation is another authority."""

    attempt: int
    under: int | None  #: seq of the generation, or of the fence of a run alone
    committer: Committer | None = None


def join(checkpoints: str | None = None, *, keep: int = KEEP) -> Run:
    """Find out where this rank runs. `checkpoints` (a URL) is used where Holdfast gave none.

    `keep` is how many verified checkpoints retention leaves. Raises `UserError` on a bad URL.
    """
    around = surroundings.read(os.environ, checkpoints)
    vault = None
    if around.checkpoints:
        begun = around.generation_seq is not None
        vault = open_vault(
            around.checkpoints, around.register, begun=begun, replicas=around.replicas
        )
    run = Run(around, vault, keep=keep)
    atexit.register(run.at_exit)
    return run


class Run:
    """One rank's part in a run."""

    def __init__(self, around: Surroundings, vault: Vault | None, *, keep: int = KEEP) -> None:
        """Use `join`; this is for tests."""
        self.around = around
        self.vault = vault
        self.resumed_from: Commit | None = None  #: the commit that `resume` loaded
        self.last_commit: Commit | None = None  #: the newest commit that this rank made
        self._loaded: Attestation | None = None
        self._ending: int | None = None
        self._authority = _Authority(around.attempt, around.generation_seq)
        self._keeper = retention.Keeper(keep)
        self._drilled: set[str] = set()
        self._heart = Heart(around.heartbeat, around.rank)
        self._segments = Segments(around)
        self._saver = Saver(self._heart)
        self._heart.beat()

    @property
    def rank(self) -> int:
        """The rank of this process, 0 alone."""
        return self.around.rank

    @property
    def world_size(self) -> int:
        """Ranks in all, 1 alone."""
        return self.around.world_size

    @property
    def local_rank(self) -> int:
        """The number of this process on its node."""
        return self.around.local_rank

    @property
    def in_holdfast(self) -> bool:
        """True if an agent started this process."""
        return self.around.in_holdfast

    @property
    def name(self) -> str:
        """JOB.ATTEMPT under Holdfast."""
        return f"{self.around.job}.{self.around.attempt}"

    def stand(self, step: int) -> None:
        """Tell the agent at which step this rank goes on."""
        self._heart.stand(step)

    def event(self, kind: str, *, step: int | None = None, text: str = "") -> None:
        """Tell the agent of something that happened once."""
        self._heart.event(kind, step=step, text=text)

    def steady(  # one argument for each wish
        self, parts: Mapping[str, Any], **wishes: Any
    ) -> Steady:
        """Return a loop that survives the death of other ranks; see `steady.Steady`.

        `parts` are the objects that make up the replicated state, each with `state_dict` and
        `load_state_dict`: modules, optimizers, schedulers. `wishes` are the fields of
        `steady.Wishes`. Raises `UserError` if a part has no state.
        """
        from orchestrator.runtime.steady import Steady, Wishes

        return Steady(self, parts, Wishes(**wishes))

    def retire(self) -> None:
        """Leave the generation: nothing is saved, or said of saves, until `rejoin`."""
        self._saver.retire()

    def rejoin(self, environ: Mapping[str, str]) -> None:
        """Take the seat in the next generation that `environ` describes, in the same process."""
        around = surroundings.read(environ)
        self.around = around
        self._authority = _Authority(around.attempt, around.generation_seq)
        self._loaded = self.last_commit = self.resumed_from = None
        self._saver = Saver(self._heart)
        self._heart.rank = around.rank
        self._heart.phase = "init"
        self._segments.begin(around)
        self._heart.beat()

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Announce a stretch without steps: "checkpoint", "evaluate", "compile" or "init"."""
        return self._heart.during(name)

    def heartbeat(
        self,
        step: int,
        loss: float | None = None,
        tokens_per_second: float | None = None,
        data_wait: float | None = None,
        own: float | None = None,
    ) -> None:
        """Say that `step` is completed. Ends the process (exit 93) if its generation is over.

        `data_wait` is the share of the step, 0 to 1, that was spent waiting for samples. `own` are
        the seconds of it in which this rank worked without waiting for others: what stragglers are
        known by. Without it they are measured, where the collectives are blocking ones on the CPU.
        """
        self._stop_if_fenced()
        measured = self._segments.end(step, data_wait or 0.0)
        self._heart.beat(
            step, loss, tokens_per_second, data_wait, own=measured if own is None else own
        )

    def role(self, name: str) -> None:
        """Say that only ranks of this role are alike: "last-stage". At most 40 characters."""
        self._heart.role = name[:40]

    # ---------------------------------------------------------------- resuming

    def resume(self) -> Loaded | None:
        """Return the verified state to continue from, None to start from nothing.

        Under Holdfast it is exactly the commit that the generation names; if that does not verify,
        the process ends with exit 92 and the gang steps down to its parent. Alone it is the last
        commit, or the first along its parents that verifies; raises `VerificationError` if there
        are commits and none does.
        """
        with self.phase("init"):
            return self.try_commits(self._load)

    def try_commits(self, load: Callable[[Checkpoint], T]) -> T | None:
        """Return `load(checkpoint)` of the commit to resume from; what `resume` is made of."""
        if self.vault is None:
            return None
        try:
            return self._try_commits(self.vault, load)
        except VerificationError as error:
            self._heart.event("verification-failed", seq=error.commit, text=str(error))
            if not self.in_holdfast:
                raise
            self._end(error)

    def _try_commits(self, vault: Vault, load: Callable[[Checkpoint], T]) -> T | None:
        lineage = vault.register.read()
        commit = self._named(lineage) if self.in_holdfast else lineage.head
        first: VerificationError | None = None
        while commit is not None:
            try:
                loaded = load(vault.open(commit))
            except VerificationError as error:
                if self.in_holdfast:
                    raise
                LOG.warning("%s; falling back to its parent", error)
                first = first or error
                commit = lineage.commit(commit.parent)
            else:
                self.resumed_from = commit
                self._heart.event("resumed", step=commit.step, seq=commit.seq)
                return loaded
        if first is not None:
            raise first
        return None

    def _named(self, lineage: Lineage) -> Commit | None:
        seq = self.around.resume
        if seq is None:
            return None
        commit = lineage.commit(seq)
        if commit is None and seq >= lineage.next_seq:
            raise TransientError(f"the register does not reach commit {seq} yet")
        if commit is None:
            raise VerificationError(seq, ("it is no commit that counts",))
        return commit

    def _load(self, checkpoint: Checkpoint) -> Loaded:
        manifest = checkpoint.manifest
        if manifest.layout is not Layout.REPLICATED:
            raise UserError(f"commit {checkpoint.commit.seq} is sharded: use runtime.dcp.resume")
        raw = {part.kind: checkpoint.read(part) for part in manifest.parts}
        state = {}
        for kind, data in raw.items():  # only after every part has been verified
            try:
                state[kind] = snapshots.from_bytes(data)
            except snapshots.BadStateError as error:
                raise VerificationError(checkpoint.commit.seq, (f"{kind}: {error}",)) from error
        bad = snapshots.find_nan(state)
        if bad is not None:
            raise VerificationError(checkpoint.commit.seq, (f"{bad} holds NaN",))
        return self.loaded(manifest, state)

    def loaded(self, manifest: Manifest, state: dict[str, Any]) -> Loaded:
        """Remember what was attested of the state that was loaded."""
        self._loaded = manifest.attestation
        return Loaded(manifest.step, state, manifest.attestation)

    def attest(
        self, *, step: int, learning_rate: float, rng: Any, tokens: int, cursor: Any, config: Any
    ) -> None:
        """Compare the live state with the manifest of the checkpoint that was loaded.

        The values are those given to `save`, taken anew from the live state. Raises
        `AttestationError` naming each field that differs; says nothing if nothing was loaded.
        """
        live = _attestation(step, learning_rate, rng, tokens, cursor, config)
        if self._loaded is not None:
            self._loaded.compare(live)

    # ---------------------------------------------------------------- saving

    def save(  # noqa: PLR0913  # a script names every fact that its resume must find again
        self,
        step: int,
        state: dict[str, Any],
        *,
        learning_rate: float,
        tokens: int,
        cursor: Any,
        config: Any,
        rng: Any,
    ) -> None:
        """Save a replicated state: each top-level key becomes one part of that kind.

        Rank 0 copies the state and writes it in the background; other ranks return at once. One
        save is in flight at most: the next waits for it. A failure (disk full, store down) is told
        and training goes on. Ends the process (exit 93) if its generation is over.

        `learning_rate` is what the next step will use, `tokens` how many were consumed in all,
        `cursor` the position in the data (plain values). `rng` (states of the generators) and
        `config` may be bytes, plain values or tensors; only their SHA-256 is kept.
        """
        self._stop_if_fenced()
        if self.vault is None or self.rank != 0:
            return
        attestation = _attestation(step, learning_rate, rng, tokens, cursor, config)
        times = SaveTimes()
        with self.phase("checkpoint"):
            if not self._saver.wait(WAIT_MAX_S):
                self._saver.fail(step, TransientError("the save before is still in flight"))
                return
            self._stop_if_fenced()
            copied = {kind: snapshots.copy_state(value) for kind, value in state.items()}
        times.goes_on()
        authority = self._authority  # a save in flight keeps it, whatever generation follows
        self._saver.start(step, lambda: self._write(copied, attestation, authority, times))

    def _write(
        self,
        state: dict[str, Any],
        attestation: Attestation,
        authority: _Authority,
        times: SaveTimes,
    ) -> None:
        bad = snapshots.find_nan(state)
        if bad is not None:
            raise PermanentError(f"{bad} holds NaN")
        save = self.begin(attestation.step, authority)
        parts = [self._put(save, kind, state.pop(kind)) for kind in tuple(state)]
        manifest = self.manifest(save, tuple(parts), attestation, Layout.REPLICATED, authority)
        self.commit(manifest, times, authority)

    def _put(self, save: str, kind: str, value: Any) -> Part:
        assert self.vault is not None
        data = snapshots.to_bytes(value)
        if kind not in self._drilled:  # a checkpoint that cannot be loaded is none: try it once
            snapshots.from_bytes(data)
            self._drilled.add(kind)
        return self.vault.put(save, kind, 0, data)

    def begin(self, step: int, authority: _Authority | None = None) -> str:
        """Return the name of a new save, if this writer's generation still rules."""
        mine = authority or self._authority
        if self.vault is None:
            raise UserError("no checkpoints: give join() a URL, or the job a key `checkpoints`")
        lineage = self.vault.register.read()
        if mine.committer is None:
            mine.committer = self._authorise(self.vault, lineage, mine)
            lineage = self.vault.register.read()
        mine.committer.check(lineage)
        return manifests.save_name(
            attempt=mine.attempt, generation=mine.under or 0, step=step, nonce=new_nonce()
        )

    def _authorise(self, vault: Vault, lineage: Lineage, mine: _Authority) -> Committer:
        if mine.under is None and self.in_holdfast:
            raise TransientError("this generation has no record in the register yet")
        if mine.under is None:
            mine.attempt = lineage.attempt + 1
            mine.under = self._open_attempt(vault, lineage, mine.attempt)
        return Committer(vault, under=mine.under, by=self.around.writer)

    def _open_attempt(self, vault: Vault, lineage: Lineage, attempt: int) -> int:
        """Append a fence of one's own: there is no controller that would."""
        token = lineage.fence.token if lineage.fence else 0
        nonce, at = new_nonce(), time.time()
        fence = vault.register.append(
            lambda seq: Fence(seq, nonce, token, attempt, at, self.around.writer), lineage
        )
        if not isinstance(fence, Fence):
            raise FencedError(f"register at {vault.register.place}: another run has just begun")
        return fence.seq

    def manifest(
        self,
        save: str,
        parts: tuple[Part, ...],
        attestation: Attestation,
        layout: Layout,
        authority: _Authority | None = None,
    ) -> Manifest:
        """Return the manifest of a save of this run.

        A state that came from memory descends from the commit that the generation names.
        """
        mine = authority or self._authority
        parent = self.last_commit or self.resumed_from
        return Manifest(
            run=self.around.job or "",
            attempt=mine.attempt,
            generation=mine.under or 0,
            step=attestation.step,
            layout=layout,
            world_size=self.world_size,
            parent=self.around.resume if parent is None else parent.seq,
            parts=parts,
            attestation=attestation,
            save=save,
            written_at=time.time(),
        )

    def commit(
        self, manifest: Manifest, times: SaveTimes, authority: _Authority | None = None
    ) -> Commit:
        """Make a save visible, tell it, and let retention remove what is no longer needed."""
        mine = authority or self._authority
        if mine.committer is None or self.vault is None:
            raise PermanentError("commit without begin")
        made = mine.committer.commit(manifest)
        if mine is self._authority:
            self.last_commit = made
        self._heart.event("commit", step=manifest.step, seq=made.seq, took=times.told())
        try:
            self._keeper.prune(self.vault, mine.committer)
        except HoldfastError as error:  # the commit stands; the next one prunes again
            LOG.warning("retention: %s", error)
        return made

    def failed(self, step: int, error: HoldfastError) -> None:
        """Tell that a save came to nothing; ends the process (exit 93) if fenced."""
        if isinstance(error, FencedError):
            self._saver.fence(step, error)
            self._stop_if_fenced()
        self._saver.fail(step, error)

    # ---------------------------------------------------------------- ending

    def close(self) -> None:
        """Wait for the last save, at most `CLOSE_MAX_S`. Exit 93 if the generation is over."""
        self.leave()
        self._stop_if_fenced()

    def leave(self) -> None:
        """Wait for the last save unless the script has failed; called at exit as well."""
        failed = getattr(sys, "last_value", None) is not None
        if self._saver.busy and not failed:
            with self.phase("checkpoint"):
                self._saver.wait(CLOSE_MAX_S)

    def at_exit(self) -> None:
        """Wait for the last save, and end with the exit code that was meant.

        A process group that nobody destroyed may abort the interpreter's end ("terminate called
        without an active exception", seen with gloo): 92 and 93 would become SIGABRT.
        """
        self.leave()
        if self._ending is not None:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._ending)

    def _stop_if_fenced(self) -> None:
        if self._saver.fenced is not None:
            self._end(self._saver.fenced)

    def _end(self, error: FencedError | VerificationError) -> NoReturn:
        LOG.error("%s", error)
        self._ending = error.exit_code
        raise SystemExit(error.exit_code) from error


def _attestation(  # the six facts, one by one
    step: int, learning_rate: float, rng: Any, tokens: int, cursor: Any, config: Any
) -> Attestation:
    facts = {"step": step, "learning_rate": learning_rate, "rng": rng, "tokens": tokens}
    return Attestation.of({**facts, "cursor": cursor, "config": config})
