"""How all ranks of a new generation come to stand at the same step: offers, a choice, a hand-over.

Every rank offers what it has (`ladder.Offer`), all choose the same, and whoever lacks the chosen
state gets it: from its node's memory, or from the first rank that has it. Then the facts of all are
compared before the first step. torch is imported by whoever imports this. Python 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from orchestrator.runtime import snapshots
from orchestrator.runtime.capture import Flat, packed, rebuild
from orchestrator.runtime.ladder import Choice, Offer


class UnfitError(Exception):
    """The state that was taken is not what was attested, or ranks differ."""


def gather(mine: Any, world: int) -> list[Any]:
    """Return everybody's object, by rank."""
    if world == 1:
        return [mine]
    everybody: list[Any] = [None] * world
    dist.all_gather_object(everybody, mine)
    return everybody


@dataclass(frozen=True)
class Plan:
    """Who gets the chosen state how; the same on every rank."""

    exposers: tuple[int, ...]  #: put their live state into their node's memory
    by_memory: tuple[int, ...]  #: then take it from there
    sender: int | None  #: hands it to
    by_wire: tuple[int, ...]  #: these


def plan(offers: Sequence[Offer], choice: Choice) -> Plan:
    """Plan the hand-over: memory within a node, the network between nodes."""
    lacking = [rank for rank in range(len(offers)) if choice.source(rank) == "peer"]
    if choice.image is None or not lacking:
        return Plan((), (), None, ())
    exposers: dict[str, int] = {}
    for rank in choice.holders:
        if offers[rank].exposes:
            exposers.setdefault(offers[rank].node, rank)
    wanted = {offers[rank].node for rank in lacking}
    used = tuple(sorted(rank for node, rank in exposers.items() if node in wanted))
    near = tuple(rank for rank in lacking if offers[rank].node in exposers)
    far = tuple(rank for rank in lacking if rank not in near)
    sender = choice.sources[0] if far else None
    return Plan(used, near, sender, far)


def send(state: Any, attestation: Mapping[str, Any], to: Sequence[int]) -> None:
    """Send a state to some ranks."""
    flat = Flat.of(state)
    whole = packed(flat)
    tree_bytes = whole.numel() - flat.bytes
    for rank in to:
        dist.send_object_list([whole.numel(), tree_bytes, dict(attestation)], rank)
        dist.send(whole, rank)


def receive(sender: int) -> tuple[Any, Mapping[str, Any]]:
    """Receive a state; return it and what was attested of it."""
    said: list[Any] = [None, None, None]
    dist.recv_object_list(said, sender)
    size, tree_bytes, attestation = said
    buffer = bytearray(size)
    dist.recv(torch.frombuffer(buffer, dtype=torch.uint8), sender)
    try:
        return rebuild(memoryview(buffer), tree_bytes), attestation
    except (snapshots.BadStateError, KeyError, TypeError, ValueError) as error:
        raise UnfitError(f"what rank {sender} sent cannot be read: {error}") from error
