"""The ladder of recovery: which state the ranks of a new generation go on from.

Live state of a survivor, then a snapshot in the node's own memory, then one that the node holds for
its partner, then the durable commit that the generation's record names. What is in memory counts
only if it came into being after the last step down: a generation that must load from the vault (the
first of an attempt, after a commit that did not verify, after the same failure twice, or bounded by
its grant) is a floor under which no memory is used any more.

Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.runtime.lineage import Cause, Generation, Lineage


@dataclass(frozen=True, order=True)
class Image:
    """A state of the whole model at the end of a step, made in a generation of this attempt.

    Ordered: a later generation's states rank above an earlier one's, whatever the step. Members of
    the earlier one may have gone on, cut off from the others, when the later one was formed.
    """

    generation: int
    step: int


@dataclass(frozen=True)
class Offer:
    """What one rank has, all of it verified."""

    node: str
    live: Image | None = None  #: in its model, at a step boundary
    memory: tuple[Image, ...] = ()  #: in its node's memory
    partner: tuple[Image, ...] = ()  #: in its node's memory, copied there from another node
    exposes: bool = False  #: it could put its live state there


@dataclass(frozen=True)
class Choice:
    """From where all ranks go on; `image` is None for the commit in the vault."""

    image: Image | None
    holders: tuple[int, ...] = ()  #: ranks that have it live
    keepers: tuple[int, ...] = ()  #: ranks whose node has it in memory
    partners: tuple[int, ...] = ()  #: ranks whose node has only a partner's copy of it
    why: str = ""

    def source(self, rank: int) -> str:
        """Name the rung that a rank takes it from: live, memory, partner, peer or vault."""
        if self.image is None:
            return "vault"
        if rank in self.holders:
            return "live"
        if rank in self.keepers:
            return "memory"
        return "partner" if rank in self.partners else "peer"

    @property
    def sources(self) -> tuple[int, ...]:
        """The ranks that come to have it by themselves."""
        return tuple(sorted({*self.holders, *self.keepers, *self.partners}))


def choose(offers: Mapping[int, Offer], floor: int, resume_step: int | None) -> Choice:
    """Choose the newest replicated state that any rank offers; the vault if that is newer.

    `floor` is what `memory_floor` said, `resume_step` the step of the commit that the generation
    names, None for none. Every rank that is given the same offers chooses the same.
    """
    images = {image for offer in offers.values() for image in _images(offer)}
    usable = sorted(image for image in images if image.generation >= floor)
    refused = len(images) - len(usable)
    if not usable:
        stale = f"; {refused} in memory are from before a step down" if refused else ""
        return Choice(None, why=f"no state in memory{stale}")
    best = usable[-1]
    if resume_step is not None and best.step < resume_step:
        return Choice(None, why=f"step {best.step} in memory is older than the commit")
    holders = tuple(sorted(rank for rank, offer in offers.items() if offer.live == best))
    keepers = tuple(sorted(rank for rank, offer in offers.items() if best in offer.memory))
    partners = tuple(
        sorted(
            rank for rank, offer in offers.items() if best in offer.partner and rank not in keepers
        )
    )
    why = f"step {best.step} of generation {best.generation}"
    return Choice(best, holders, keepers, partners, why)


def _images(offer: Offer) -> Iterable[Image]:
    live = () if offer.live is None else (offer.live,)
    return (*live, *offer.memory, *offer.partner)


def memory_floor(lineage: Lineage, latest: Generation) -> int:
    """Return the number of the last generation, up to `latest`, that had to load from the vault."""
    fence = lineage.fence
    mine = [g for g in lineage.generations if fence is not None and g.under == fence.seq]
    chain = [g for g in mine if g.number < latest.number] + [latest]
    floor = latest.number if len(chain) < latest.number else chain[0].number
    for before, after in pairwise(chain):
        if after.number != before.number + 1 or not _continues(lineage, before, after):
            floor = after.number
    return floor


def _continues(lineage: Lineage, before: Generation, after: Generation) -> bool:
    """Say whether `after` may go on from what `before` had in memory."""
    because = after.because
    if because.cause is Cause.VERIFICATION or because.repeats(before.because):
        return False
    between = [c.seq for c in lineage.commits if before.seq < c.seq < after.seq]
    head = between[-1] if between else before.resume
    return after.resume == head
