"""Batches made ahead of time by worker processes, which may die.

A batch is a pure function of its number, so nothing is lost with a worker: the pool is made anew
and asked again. Samples, not tensors, cross the process border; they are put side by side here.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from model.data import order
from model.data.feed import Feed, Tally
from model.data.samples import Batch, Sample, collate
from orchestrator.errors import PermanentError

AHEAD = 2  #: batches under way per worker
REPLACED_MAX = 20  #: pools in a row that died before they made anything

Made = tuple[list[Sample], Tally]
_feeds: tuple[Feed, ...] = ()  # of this worker


@dataclass(frozen=True, slots=True)
class Want:
    """One batch of the run."""

    stage: int
    number: int  #: of the batch within the stage, from 1


class Loader:
    """Gives the batches that one rank computes."""

    def __init__(  # the place of a rank is three numbers
        self, feeds: Sequence[Feed], *, rank: int, world: int, workers: int, multiple: int = 1
    ) -> None:
        self.tally = Tally()  #: damaged samples and trained positions of this rank
        self.waited_s = 0.0  #: training stood still for data, in all
        self.rank = rank  #: whose samples these are
        self.replaced = 0  #: times that dead workers were replaced
        self._feeds = tuple(feeds)
        if rank == 0:
            self.tally.note_lost(self._feeds)
        self._world, self._multiple = world, multiple
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._pending: dict[Want, Future[Made]] = {}

    def get(self, want: Want) -> Batch:
        """Return this rank's part of a batch, and begin with those that follow it."""
        started = time.monotonic()
        samples, tally = self._ahead(want) if self._workers else self._here(want)
        feed = self._feeds[want.stage]
        batch = collate(samples, feed.form.tokenizer, self._multiple)
        self.tally.add(tally)
        self.waited_s += time.monotonic() - started
        return batch

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._pending.clear()

    def _here(self, want: Want) -> Made:
        feed = self._feeds[want.stage]
        return feed.samples(want.number, order.share(feed.batch, self.rank, self._world))

    def _ahead(self, want: Want) -> Made:
        for _ in range(REPLACED_MAX):
            self._ask(want)
            try:
                return self._pending.pop(want).result()
            except BrokenProcessPool:
                self.replaced += 1
                self.close()
        raise PermanentError(
            f"{REPLACED_MAX} pools of {self._workers} workers died on batch {want.number} of stage "
            f"{want.stage}; look for the out-of-memory killer, or use --workers 0"
        )

    def _ask(self, want: Want) -> None:
        """Have a batch and its successors made, unless they are already."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(self._feeds,),
            )
        for later in range(AHEAD * self._workers + 1):
            one = Want(want.stage, want.number + later)
            if one not in self._pending:
                self._pending[one] = self._pool.submit(_make, one, self.rank, self._world)
        stale = [
            one for one in self._pending if one.stage != want.stage or one.number < want.number
        ]
        for one in stale:
            self._pending.pop(one).cancel()


def _begin(feeds: tuple[Feed, ...]) -> None:
    global _feeds  # what a worker knows from its start
    import torch

    torch.set_num_threads(1)
    _feeds = feeds


def _make(want: Want, rank: int, world: int) -> Made:
    feed = _feeds[want.stage]
    return feed.samples(want.number, order.share(feed.batch, rank, world))
