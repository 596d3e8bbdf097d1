"""What speaks against the last generation, as one of its members sees it.

Each question returns a `Doubt` or None; `membership.py` turns the first one into the generation's
trouble. Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Cause, Generation, Member
from orchestrator.runtime.neighbours import Peers
from orchestrator.runtime.words import Phase


@dataclass(frozen=True)
class Doubt:
    """Why a generation cannot go on."""

    cause: Cause
    node: str
    fingerprint: str


def watched(latest: Generation, me: Member, *, all_of_them: bool) -> tuple[Member, ...]:
    """Return whom a member watches: the leader watches all, all watch the leader.

    A star keeps the pings of a large gang linear. Who has finished asks everybody
    (`all_of_them`): the leader may be gone before it said that all are done.
    """
    if latest.members[0] == me or all_of_them:
        return tuple(member for member in latest.members if member != me)
    return latest.members[:1]


def about_grant(latest: Generation, grant: Grant, me: Member, *, joined: bool) -> Doubt | None:
    """End what a newer grant leaves a member out of; never join under an older grant."""
    if grant.number <= latest.grant:
        return None
    out = [member.node for member in latest.members if member not in grant.seats]
    if out:
        return Doubt(Cause.GRANT, out[0], f"grant {grant.number} leaves {', '.join(out)} out")
    if not joined:
        why = f"formed under grant {latest.grant}, {grant.number} has come"
        return Doubt(Cause.GRANT, me.node, why)
    return None


def about_members(
    latest: Generation, members: tuple[Member, ...], peers: Peers, join_by: float
) -> Iterator[Doubt]:
    """Yield members that are lost, were replaced, or have not joined at `join_by`."""
    for member in members:
        peer = peers.of(member)
        if peers.is_held(member):
            continue
        if peers.silent(member) and not peer.has(latest.mark, Phase.FINISHED):
            yield Doubt(Cause.NODE_LOST, member.node, f"{member.node} is silent")
        elif peer.was_replaced(latest):
            yield Doubt(Cause.NODE_LOST, member.node, f"the agent of {member.node} is new")
        elif not peer.take_part(latest) and peers.is_due(join_by):
            yield Doubt(Cause.JOIN_FAILED, member.node, f"{member.node} did not join in time")
