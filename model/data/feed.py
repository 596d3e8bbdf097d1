"""The training batches of a stage: order, sources and objectives put together.

A damaged sample never ends a run: it is counted by source and flaw, the first of each are named,
and another item of the same source, drawn from dice of its own, stands in for it. So the batch is
still a pure function of the seed, the stage and the number of the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model.data import order
from model.data.order import Stream
from model.data.samples import Batch, Form, Sample, collate
from model.data.sources import Source
from model.media.medium import BadSampleError
from orchestrator.errors import PermanentError

TRIES_MAX = 16  #: items of a source, one after another damaged, that end a run
NAMED_MAX = 20  #: damaged samples that are named; all are counted


@dataclass(slots=True)
class Tally:
    """Damaged samples so far."""

    counts: Counter[str] = field(default_factory=Counter)  #: by "source: flaw"
    named: list[str] = field(default_factory=list)  #: the first of them, in words
    positions: Counter[str] = field(default_factory=Counter)  #: trained on, by source

    def note(self, source: str, item: int, error: BadSampleError) -> None:
        """Count one damaged sample."""
        self._note(f"{source}: {error.flaw}", f"{source}, item {item}: {error}")

    def note_lost(self, feeds: Sequence[Feed]) -> None:
        """Count what the sources of a run lack from the beginning, each once."""
        lost = [
            (name, what)
            for feed in feeds
            for name, source in feed.sources.items()
            for what in getattr(source, "lost", ())  # of shards: tars that the index left out
        ]
        for name, what in dict.fromkeys(lost):
            self._note(f"{name}: lost", f"{name}: left out: {what}")

    def _note(self, counted: str, named: str) -> None:
        self.counts[counted] += 1
        if len(self.named) < NAMED_MAX:
            self.named.append(named)

    def add(self, other: Tally) -> None:
        """Add what another process counted."""
        self.counts.update(other.counts)
        self.positions.update(other.positions)
        self.named += other.named[: NAMED_MAX - len(self.named)]


@dataclass(frozen=True)
class Feed:
    """The samples of every batch of a stage."""

    sources: Mapping[str, Source]  #: by name, in the order of the stream's shares
    stream: Stream
    batch: int  #: samples of a batch, of all ranks together
    form: Form

    def sample(self, number: int, index: int, tally: Tally) -> Sample:
        """Return sample `index` of batch `number`; the same on every rank of every gang.

        Raises PermanentError if a source is damaged all through.
        """
        chosen, ordinal = self.stream.at((number - 1) * self.batch + index)
        name = tuple(self.sources)[chosen]
        source = self.sources[name]
        item = self.stream.item(chosen, ordinal, len(source))
        dice = self.stream.dice(number, index)
        substitutes = None
        for _ in range(TRIES_MAX):
            try:
                made = source.sample(item, dice, self.form)
            except BadSampleError as error:
                tally.note(name, item, error)
                substitutes = substitutes or self.stream.substitutes(number, index)
                item = int(substitutes.integers(len(source)))
            else:
                tally.positions[name] += len(made.prompt) + len(made.answer) + 1
                return made
        raise PermanentError(
            f"source {name}: {TRIES_MAX} samples running cannot be used; the last ones: "
            + "; ".join(tally.named[-3:])
        )

    def samples(self, number: int, indices: Sequence[int]) -> tuple[list[Sample], Tally]:
        """Return some samples of a batch, and what was damaged on the way."""
        tally = Tally()
        return [self.sample(number, index, tally) for index in indices], tally

    def share(self, number: int, rank: int, world: int, multiple: int = 1) -> tuple[Batch, Tally]:
        """Return the part of a batch that this rank computes."""
        made, tally = self.samples(number, order.share(self.batch, rank, world))
        return collate(made, self.form.tokenizer, multiple), tally
