"""The rules of forming a generation, one question each: who proposes, who is in, why, from where.

`membership.py` asks them; they hold no state. Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import (
    Because,
    Cause,
    Commit,
    Generation,
    Lineage,
    Member,
    choose_resume,
)
from orchestrator.runtime.words import Trouble

#: Ends that a peer's failure also brings: an abort after a broken collective, being told to go.
_SECONDARY_SIGNALS = ("signal 6", "signal 15")


def proposers(
    latest: Generation | None, grant: Grant, lost: Collection[Member]
) -> tuple[Member, ...]:
    """Return who may propose the next generation, in the order in which they should.

    Members of the last generation that still have a seat. If there is none yet, or if all of them
    are `lost` or without a seat and a newer grant has come, the nodes that the grant wants.
    """
    if latest is None:
        return grant.nodes
    seated = tuple(member for member in latest.members if member in grant.seats)
    if grant.number > latest.grant and all(member in lost for member in seated):
        return (*seated, *(node for node in grant.nodes if node not in seated))
    return seated


def choose(
    leader: Member, latest: Generation | None, candidates: Collection[Member], grant: Grant
) -> tuple[Member, ...]:
    """Return the members of the next generation: the leader, then old ones, then new ones.

    Where there are more candidates than the gang may have members, the grant's order decides:
    wanted nodes before standbys. The leader comes first, because rank 0's host is MASTER_ADDR.
    """
    ranked = [seat for seat in grant.seats if seat in candidates and seat != leader]
    chosen = ranked[: max(0, grant.nodes_max - 1)]
    old = [] if latest is None else [member for member in latest.members if member in chosen]
    return (leader, *old, *(seat for seat in chosen if seat not in old))


def is_minority(latest: Generation | None, present: Collection[Member]) -> bool:
    """Say whether fewer than half of the previous members are on this side."""
    if latest is None:
        return False
    return 2 * sum(1 for member in latest.members if member in present) < len(latest.members)


def first_failure(troubles: Iterable[Trouble]) -> Trouble | None:
    """Return the failure that brought the others.

    When one rank dies, its peers fail a moment later with errors of their collectives; when a node
    dies, all of them do, before its silence is noticed. So a death that nothing else explains (a
    signal, a stop, a hang, a checkpoint that does not verify) comes before a lost node, that before
    an exit with an error, and among equals the earliest moment decides. Clocks of nodes differ by
    more than a rank needs to follow another one, which is why kinds come before moments.
    """
    return min(troubles, key=lambda one: (_weight(one.because), one.at), default=None)


def _weight(because: Because) -> int:
    if because.cause is Cause.RANK_EXIT:
        by_signal = because.fingerprint.startswith("signal")
        return 0 if by_signal and not because.fingerprint.startswith(_SECONDARY_SIGNALS) else 2
    if because.cause in (Cause.VERIFICATION, Cause.RANK_STOPPED, Cause.HANG):
        return 0
    return 3 if because.cause is Cause.JOIN_FAILED else 1


def is_plain(trouble: Trouble) -> bool:
    """Say whether waiting a moment may still show an earlier cause."""
    return _weight(trouble.because) > 1


def spent(lineage: Lineage, grant: Grant, because: Because, number: int) -> str | None:
    """Return which budget a next generation would exceed; None if there is enough.

    `number` is the one it would have in its attempt; without a register nothing shows progress, and
    all of them count.
    """
    mine = lineage.fruitless()
    count = number - 1 if lineage.fence is None else len(mine)
    if count >= grant.generations_max:
        return f"{count} generations in a row reached no new checkpoint"
    budget = grant.budget.get(because.cause.value)
    alike = sum(one.because.cause is because.cause for one in mine)
    if budget is not None and alike >= budget:
        return f"{alike} generations for {because.cause.value} in a row reached no new checkpoint"
    return None


def choose_bounded(
    lineage: Lineage, because: Because, resume_max: int | None
) -> tuple[int | None, str]:
    """Choose the commit to resume from, not beyond the grant's bound: fall back along parents."""
    seq, why = choose_resume(lineage, because)
    if resume_max is None or seq is None or seq <= resume_max:
        return seq, why
    commit: Commit | None = lineage.commit(seq)
    while commit is not None and commit.seq > resume_max:
        commit = lineage.commit(commit.parent)
    bound = f"the grant allows none after {resume_max}"
    if commit is None:
        return None, f"{why}; {bound}, and none of its parents either: starting from nothing"
    return commit.seq, f"{why}; {bound}: its parent {commit.seq} (step {commit.step})"
