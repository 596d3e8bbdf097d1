from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.runtime.ladder import Image, Offer, choose, memory_floor
from orchestrator.runtime.lineage import (
    Because,
    Cause,
    Commit,
    Fence,
    Generation,
    Lineage,
    Member,
    Record,
    choose_resume,
)

SIGNAL = Because(Cause.RANK_EXIT, 7, "signal 9", "a", 0)


def gang(*records: Any) -> Lineage:
    """Fold a fence, then generations (a Because, or it and what to resume) and commits (steps)."""
    made: list[Record] = [Fence(1, "n", 1, 1, 0.0)]
    lineage = Lineage.read(made)
    for one in records:
        seq, latest = lineage.next_seq, lineage.latest
        record: Record
        if isinstance(one, int):
            assert latest is not None
            head = lineage.head
            parent = None if head is None else head.seq
            record = Commit(seq, "n", latest.seq, one, parent, "m", "d", 0.0, "r")
        else:
            because, resume = one if isinstance(one, tuple) else (one, "head")
            if resume == "head":
                resume, _ = choose_resume(lineage, because)
            after = None if latest is None else latest.seq
            number = 1 if latest is None else latest.number + 1
            record = Generation(
                seq=seq,
                nonce="n",
                under=1,
                after=after,
                number=number,
                grant=1,
                members=(Member("a", "h", 1),),
                store=f"h:{seq}",
                resume=resume,
                why="",
                because=because,
                at=0.0,
                by="a",
            )
        lineage = lineage.then(record)
    return lineage


START = Because(Cause.START)
LOST = Because(Cause.NODE_LOST, None, "b is silent", "b")
UNVERIFIED = Because(Cause.VERIFICATION, 7, "exit 92", "a", 0, commit=3)
MEMORY_UNFIT = Because(Cause.VERIFICATION, 7, "exit 94", "a", 0)


@pytest.mark.parametrize(
    ("records", "floor"),
    [
        ((START,), 1),
        ((START, SIGNAL), 1),
        ((START, 10, SIGNAL, LOST), 1),
        ((START, 10, SIGNAL, SIGNAL), 3),  # poison: down from memory
        ((START, SIGNAL, SIGNAL), 3),  # and also with nothing committed
        ((START, 10, SIGNAL, SIGNAL, LOST), 3),  # what came after the step down counts again
        ((START, 10, UNVERIFIED), 2),
        ((START, 10, MEMORY_UNFIT), 2),  # the commit stays, memory does not
        ((START, 10, 20, (LOST, 3)), 2),  # the grant's bound went below the head
        ((START, 10, 20, (LOST, 4)), 1),
        ((START, 10, (LOST, None)), 2),
    ],
)
def test_memory_counts_since_the_last_step_down(records: Any, floor: int) -> None:
    lineage = gang(*records)
    assert lineage.latest is not None
    assert memory_floor(lineage, lineage.latest) == floor


def test_a_generation_whose_predecessor_is_unknown_uses_no_memory() -> None:
    lineage = gang(START, 10, SIGNAL)
    known = gang(START, 10)
    assert lineage.latest is not None
    assert memory_floor(known, lineage.latest) == 1  # formed, not yet recorded
    assert memory_floor(gang(START), replace(lineage.latest, number=9)) == 9


def image(generation: int, step: int) -> Image:
    return Image(generation, step)


def test_the_newest_live_state_wins_and_others_get_it() -> None:
    offers = {
        0: Offer("a", image(2, 9), (image(2, 8),)),
        1: Offer("b", image(2, 10)),
        2: Offer("b", None, (image(2, 8),)),
    }
    choice = choose(offers, 1, 5)
    assert choice.image == image(2, 10)
    assert [choice.source(rank) for rank in offers] == ["peer", "live", "peer"]


def test_a_later_generation_ranks_above_a_later_step() -> None:
    """Who was cut off may have gone on; what the others did since is what counts."""
    offers = {0: Offer("a", None, (image(2, 50),)), 1: Offer("b", image(3, 41))}
    assert choose(offers, 1, None).image == image(3, 41)


def test_below_the_floor_nothing_in_memory_counts() -> None:
    offers = {0: Offer("a", image(2, 50)), 1: Offer("b")}
    choice = choose(offers, 3, 40)
    assert choice.image is None
    assert "step down" in choice.why
    assert choice.source(0) == "vault"


def test_a_newer_commit_beats_memory_and_an_equal_one_does_not() -> None:
    offers = {0: Offer("a", None, (image(1, 20),))}
    assert choose(offers, 1, 21).image is None
    assert choose(offers, 1, 20).image == image(1, 20)
    assert choose({0: Offer("a")}, 1, None).image is None
