"""A vault in a test: a fence, a generation, and checkpoints committed by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.runtime.lineage import Because, Cause, Commit, Fence, Generation, Member
from orchestrator.runtime.manifests import Attestation, Layout, Manifest, save_name
from orchestrator.runtime.register import Overtaken, Register, new_nonce
from orchestrator.runtime.store import Store
from orchestrator.runtime.vault import Committer, Vault

FACTS = Attestation(step=0, learning_rate=0.1, rng="r" * 64, tokens=0, cursor=0, config="c" * 64)


@dataclass
class Story:
    """One run's vault, told step by step."""

    store: Store
    parent: int | None = None

    def __post_init__(self) -> None:
        self.register = Register(self.store)
        self.vault = Vault(self.store, self.register)

    def fence(self) -> int:
        lineage = self.register.read()
        attempt, nonce = lineage.attempt + 1, new_nonce()
        outcome = self.register.append(lambda seq: Fence(seq, nonce, 1, attempt, 0.0), lineage)
        assert not isinstance(outcome, Overtaken)
        return outcome.seq

    def generation(self, resume: int | None = None) -> int:
        lineage = self.register.read()
        assert lineage.fence is not None
        latest = lineage.latest
        made = Generation(
            seq=0,
            nonce=new_nonce(),
            under=lineage.fence.seq,
            after=None if latest is None else latest.seq,
            number=1 if latest is None else latest.number + 1,
            grant=1,
            members=(Member("n1", "127.0.0.1", 1),),
            store="127.0.0.1:2",
            resume=resume,
            why="test",
            because=Because(Cause.START),
            at=0.0,
            by="n1",
        )
        outcome = self.register.append(lambda seq: replace(made, seq=seq), lineage)
        assert not isinstance(outcome, Overtaken)
        self.parent = resume
        return outcome.seq

    def writer(self) -> Committer:
        ruler = self.register.read().ruler
        assert ruler is not None
        return Committer(self.vault, under=ruler, by="n1/rank0", clock=lambda: 0.0)

    def put(self, step: int, data: bytes = b"weights") -> Manifest:
        """Write the parts of a checkpoint; nothing makes them visible yet."""
        lineage = self.register.read()
        ruler = lineage.ruler or 0
        save = save_name(attempt=lineage.attempt, generation=ruler, step=step, nonce=new_nonce())
        model = self.vault.put(save, "model", 0, data * 10)
        optimizer = self.vault.put(save, "optimizer", 0, b"moments of " + data)
        return Manifest(
            run="job",
            attempt=lineage.attempt,
            generation=ruler,
            step=step,
            layout=Layout.REPLICATED,
            world_size=1,
            parent=self.parent,
            parts=(model, optimizer),
            attestation=replace(FACTS, step=step),
            save=save,
            written_at=0.0,
        )

    def commit(self, step: int, data: bytes = b"weights") -> Commit:
        commit = self.writer().commit(self.put(step, data))
        self.parent = commit.seq
        return commit
