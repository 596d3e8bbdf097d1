"""Snapshots in memory: whatever is wrong with one is noticed, and the other slot is there."""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.runtime.ladder import Image
from orchestrator.runtime.memory import Head, Segment, TornError, hasher, segment_bytes

BODY = 10_000


@pytest.fixture
def segment() -> Iterator[Segment]:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, segment_bytes(BODY))
    made = Segment(descriptor, populate=True)
    yield made
    made.close()


def write(segment: Segment, step: int, generation: int = 1, fill: int | None = None) -> int:
    slot = segment.spare_slot()
    segment.erase(slot)
    data = bytes([step % 256 if fill is None else fill]) * BODY
    segment.body(slot)[:BODY] = data
    name, digest = hasher()
    digest.update(data)
    facts: dict[str, Any] = {"step": step}
    segment.publish(slot, Head("j.1", generation, step, 100, BODY, name, digest.hexdigest(), facts))
    return slot


def test_two_slots_in_turn_keep_the_newest_two(segment: Segment) -> None:
    assert segment.heads() == {}
    for step in (1, 2, 3):
        write(segment, step)
    assert sorted(head.step for head in segment.heads().values()) == [2, 3]
    for slot, head in segment.heads().items():
        read, body = segment.read(slot)
        assert read == head
        assert bytes(body) == bytes([head.step]) * BODY


def test_a_writer_that_dies_in_between_leaves_the_other_slot(segment: Segment) -> None:
    write(segment, 1)
    write(segment, 2)
    slot = segment.spare_slot()
    segment.erase(slot)
    segment.body(slot)[:500] = bytes(500)
    assert [head.step for head in segment.heads().values()] == [2]
    with pytest.raises(TornError, match="no whole head"):
        segment.read(slot)


def _flip(segment: Segment, slot: int, dice: random.Random) -> None:
    at = dice.randrange(BODY)
    segment.body(slot)[at] ^= 1 << dice.randrange(8)


def _flip_in_head(segment: Segment, slot: int, dice: random.Random) -> None:
    start = slot * segment._slot
    at = start + dice.randrange(200)
    segment._map[at] ^= 1 << dice.randrange(8)


def _tail_of_another(segment: Segment, slot: int, dice: random.Random) -> None:
    half = dice.randrange(1, BODY)
    segment.body(slot)[half:BODY] = segment.body(1 - slot)[half:BODY]


def _body_of_another(segment: Segment, slot: int, _: random.Random) -> None:
    segment.body(slot)[:BODY] = segment.body(1 - slot)[:BODY]


def _zeros(segment: Segment, slot: int, dice: random.Random) -> None:
    at = dice.randrange(BODY - 1)
    segment.body(slot)[at:BODY] = bytes(BODY - at)


@pytest.mark.parametrize(
    "mutate", [_flip, _flip_in_head, _tail_of_another, _body_of_another, _zeros]
)
def test_every_damage_is_refused(
    segment: Segment, mutate: Callable[[Segment, int, random.Random], None]
) -> None:
    refused = 0
    for seed in range(100):
        dice = random.Random(seed)
        write(segment, 1 + 2 * seed)
        slot = write(segment, 2 + 2 * seed)
        segment.read(slot)
        mutate(segment, slot, dice)
        try:
            segment.read(slot)
        except TornError:
            refused += 1
        segment.read(1 - slot)  # the one before is still whole
        segment.erase(slot)
    assert refused == 100, f"seeds 0 to 99, {mutate.__name__}"


def test_500_whole_ones_are_all_accepted(segment: Segment) -> None:
    for step in range(500):
        slot = write(segment, step, generation=1 + step // 100)
        head, body = segment.read(slot)
        assert head.image == Image(1 + step // 100, step)
        assert body[0] == step % 256


def test_an_unknown_hash_is_refused_not_believed(segment: Segment) -> None:
    slot = write(segment, 1)
    head = segment.heads()[slot]
    segment.publish(slot, replace(head, hash="crc32"))
    with pytest.raises(TornError, match="crc32"):
        segment.read(slot)


def test_without_xxhash_the_hash_is_sha256(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert hasher()[0] == "sha256"
    with pytest.raises(TornError, match="no xxhash"):
        hasher("xxh3-128")
