"""Back to a verified checkpoint when the loss is no longer to be believed.

Every rank comes to the same verdict, since all see the same totals. Rank 0 says which commit; all
read it from the vault, which verifies every part. The batches of the spoiled steps are skipped for
good: their numbers travel in the checkpoints from then on. If the same stretch is spoiled again,
the damage is older than the checkpoint: the next rollback goes one commit further back. After
`ROLLBACKS_MAX` of them in one process the run ends: something is wrong that no rollback mends.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch

from model.data.loader import Want
from model.spikes import Spoiled
from orchestrator.errors import PermanentError

if TYPE_CHECKING:
    from model.sharded import ShardedTrainer
    from model.trainer import Trainer
    from orchestrator.runtime.training import Run

ROLLBACKS_MAX = 8


@dataclass(frozen=True, slots=True)
class Rollback:
    """One entry of the audit."""

    at_step: int  #: the last spoiled step
    reason: str
    to_step: int  #: 0: from the beginning
    skipped: tuple[tuple[int, int], ...]  #: stage and number of each batch


@dataclass(slots=True)
class Rescue:
    """What was rolled back so far."""

    run: Run
    trainer: Trainer | ShardedTrainer
    audit: list[Rollback] = field(default_factory=list)

    def back(self, spoiled: Spoiled) -> None:
        """Go back and skip the spoiled batches. Raises PermanentError when it is too often."""
        trainer = self.trainer
        at = trainer.step
        if len(self.audit) >= ROLLBACKS_MAX:
            told = "; ".join(f"step {one.at_step}: {one.reason}" for one in self.audit)
            raise PermanentError(f"{ROLLBACKS_MAX} rollbacks did not help ({told}); lower --lr?")
        bad = [trainer.batch_of(step) for step in range(max(1, at - spoiled.steps + 1), at + 1)]
        skipped = [*trainer.skipped, *bad]
        self._restore(further=self._again(at))
        trainer.skipped = list(dict.fromkeys(skipped))
        entry = Rollback(at, spoiled.reason, trainer.step, tuple(_pair(one) for one in bad))
        self.audit.append(entry)
        if self.run.rank == 0:
            print(f"rollback {json.dumps(asdict(entry))}", file=sys.stderr, flush=True)

    def _again(self, at: int) -> int:
        """Return how many of the last rollbacks this one repeats: each was not far enough."""
        repeats = 0
        for one in reversed(self.audit):
            if not one.to_step < at <= one.at_step + 2 * self.trainer.settings.checkpoint_every:
                break
            repeats += 1
        return repeats

    def _restore(self, further: int) -> None:
        """Load the newest commit, or one `further` along its parents; the beginning if none."""
        vault = self.run.vault
        commit = None
        if vault is not None:
            self.run.leave()  # the save in flight is the newest there will be
            commit = vault.register.read().commit(self._agreed(further))
        if vault is None or commit is None:
            self.trainer.reset()
        else:
            self.trainer.restore(vault.open(commit))
        self.run.last_commit = commit  # the parent of the next save

    def _agreed(self, further: int) -> int:
        """Return the seq of the commit to go back to, as rank 0 sees it; -1 for none."""
        seq = -1
        if self.run.rank == 0:
            assert self.run.vault is not None
            lineage = self.run.vault.register.read()
            commit = self.run.last_commit or self.run.resumed_from
            for _ in range(further):
                commit = None if commit is None else lineage.commit(commit.parent)
            seq = -1 if commit is None else commit.seq
        if self.run.world_size > 1:
            told = torch.tensor([seq])
            torch.distributed.broadcast(told, 0)
            seq = int(told)
        return seq


def _pair(want: Want) -> tuple[int, int]:
    return want.stage, want.number
