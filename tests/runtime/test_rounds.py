"""The rules of forming a generation, one question each; and what speaks against one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.runtime import doubts, grants, rounds
from orchestrator.runtime.doubts import Doubt
from orchestrator.runtime.grants import BadGrantError, Grant
from orchestrator.runtime.lineage import (
    Because,
    Cause,
    Commit,
    Fence,
    Generation,
    Lineage,
    Member,
)
from orchestrator.runtime.neighbours import Alarm, Peers
from orchestrator.runtime.turns import Terms
from orchestrator.runtime.words import Phase, Status, Trouble, Word

A, B, C, D = (Member(name, "h", 1) for name in "abcd")
GRANT = Grant("j", 1, 1, 1, (A, B), (C, D), 1, 2, 10, {"hang": 1})
LATEST = Generation(
    seq=2,
    nonce="n",
    under=1,
    after=None,
    number=1,
    grant=1,
    members=(A, B),
    store="h:1",
    resume=None,
    why="",
    because=Because(Cause.START),
    at=0.0,
    by="a",
)


def test_who_proposes() -> None:
    assert rounds.proposers(None, GRANT, ()) == (A, B)
    assert rounds.proposers(LATEST, GRANT, ()) == (A, B)
    assert rounds.proposers(LATEST, GRANT, (A, B)) == (A, B)  # never a standby
    newer = replace(GRANT, number=2, nodes=(C, D), standbys=(B,))
    assert rounds.proposers(LATEST, newer, ()) == (B,)
    assert rounds.proposers(LATEST, newer, (B,)) == (B, C, D)


def test_who_is_chosen() -> None:
    everybody = {A, B, C, D}
    assert rounds.choose(B, LATEST, everybody, GRANT) == (B, A)
    assert rounds.choose(A, LATEST, {A, C, D}, GRANT) == (A, C)
    wider = replace(GRANT, nodes_max=4, nodes=(C, A), standbys=(B, D))
    assert rounds.choose(B, LATEST, everybody, wider) == (B, A, C, D)
    assert rounds.choose(A, None, {A}, replace(GRANT, nodes_max=1)) == (A,)


def test_who_is_a_minority() -> None:
    three = replace(LATEST, members=(A, B, C))
    assert not rounds.is_minority(None, ())
    assert not rounds.is_minority(LATEST, {A})
    assert rounds.is_minority(three, {A, D})


def trouble(cause: Cause, at: float, fingerprint: str = "") -> Trouble:
    return Trouble("m", Because(cause, fingerprint=fingerprint), at)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (trouble(Cause.RANK_EXIT, 2.0, "signal 9"), trouble(Cause.RANK_EXIT, 1.0, "exit 1: reset")),
        (trouble(Cause.RANK_EXIT, 1.0, "exit 1: a"), trouble(Cause.RANK_EXIT, 2.0, "exit 1: b")),
        (trouble(Cause.RANK_EXIT, 2.0, "signal 11"), trouble(Cause.RANK_EXIT, 1.0, "signal 6")),
        (trouble(Cause.RANK_EXIT, 2.0, "signal 9"), trouble(Cause.NODE_LOST, 1.0)),
        (trouble(Cause.NODE_LOST, 2.0), trouble(Cause.RANK_EXIT, 1.0, "exit 1: reset")),
        (trouble(Cause.VERIFICATION, 2.0), trouble(Cause.RANK_EXIT, 1.0, "exit 1")),
        (trouble(Cause.RANK_EXIT, 2.0, "exit 1"), trouble(Cause.JOIN_FAILED, 1.0)),
    ],
)
def test_the_failure_that_brought_the_other(first: Trouble, second: Trouble) -> None:
    assert rounds.first_failure([first, second]) == first
    assert rounds.first_failure([second, first]) == first


def test_budgets() -> None:
    lineage = Lineage.read([Fence(1, "f", 1, 1, 0.0), LATEST])
    hang = Because(Cause.HANG)
    assert rounds.spent(lineage, GRANT, hang, 2) is None
    second = replace(LATEST, seq=3, after=2, because=hang)
    says = rounds.spent(lineage.then(second), GRANT, hang, 3)
    assert says == "1 generations for hang in a row reached no new checkpoint"
    said = rounds.spent(lineage, replace(GRANT, generations_max=1), Because(Cause.GRANT), 2)
    assert said == "1 generations in a row reached no new checkpoint"
    lost = rounds.spent(Lineage(), GRANT, Because(Cause.GRANT), 11)  # there is no register
    assert lost == "10 generations in a row reached no new checkpoint"


def test_a_new_checkpoint_gives_every_budget_back() -> None:
    hang = Because(Cause.HANG)
    second = replace(LATEST, seq=3, after=2, because=hang)
    lineage = Lineage.read([Fence(1, "f", 1, 1, 0.0), LATEST, second])
    tight = replace(GRANT, generations_max=2)
    assert rounds.spent(lineage, GRANT, hang, 3) is not None
    assert rounds.spent(lineage, tight, Because(Cause.GRANT), 3) is not None
    on = lineage.then(Commit(4, "c", 3, 10, None, "m", "d", 0.0, "a"))
    assert rounds.spent(on, GRANT, hang, 3) is None
    assert rounds.spent(on, tight, Because(Cause.GRANT), 3) is None


def test_resuming_is_bounded_by_the_grant() -> None:
    commits = [Commit(s, "c", 2, s, s - 1 if s > 3 else None, "m", "d", 0.0, "a") for s in (3, 4)]
    lineage = Lineage.read([Fence(1, "f", 1, 1, 0.0), LATEST, *commits])
    exit_ = Because(Cause.RANK_EXIT)
    assert rounds.choose_bounded(lineage, exit_, None)[0] == 4
    assert rounds.choose_bounded(lineage, exit_, 3)[0] == 3
    seq, why = rounds.choose_bounded(lineage, exit_, 2)
    assert seq is None
    assert "starting from nothing" in why


# ---- doubts --------------------------------------------------------------------------------------


def status(member: Member, **more: object) -> Status:
    plain = Status(member, 1.0, 1, 1, True, None, Phase.CLEAR, None)
    return replace(plain, **more)  # type: ignore[arg-type]


def test_a_grant_may_speak_against_a_generation() -> None:
    assert doubts.about_grant(LATEST, GRANT, A, joined=False) is None
    newer = replace(GRANT, number=2)
    assert doubts.about_grant(LATEST, newer, A, joined=True) is None
    late = doubts.about_grant(LATEST, newer, A, joined=False)
    assert late == Doubt(Cause.GRANT, "a", "formed under grant 1, 2 has come")
    left_out = doubts.about_grant(LATEST, replace(newer, nodes=(B,)), A, joined=True)
    assert left_out == Doubt(Cause.GRANT, "a", "grant 2 leaves a out")


def test_members_may_speak_against_a_generation() -> None:
    alarm = Alarm(0.0)
    peers = Peers(Terms("j", 1, A, born=0.0), alarm)

    def doubt() -> list[Doubt]:
        return list(doubts.about_members(LATEST, (B,), peers, join_by=10.0))

    assert doubt() == []
    alarm.wind(10.0)
    assert doubt() == [Doubt(Cause.JOIN_FAILED, "b", "b did not join in time")]
    peers.hear(Word(False, 1, status(B, phase=Phase.RUNNING, mark=LATEST.mark)))
    assert doubt() == []
    peers.of(B).broken = True
    assert doubt() == [Doubt(Cause.NODE_LOST, "b", "b is silent")]
    peers.hear(Word(False, 2, status(B, born=2.0)))
    assert doubt() == [Doubt(Cause.NODE_LOST, "b", "the agent of b is new")]
    peers.hear(Word(False, 3, status(B, born=2.0, count=2, stopping=True)))
    assert doubt() == []


# ---- grants --------------------------------------------------------------------------------------


def test_a_grant_survives_the_wire() -> None:
    assert grants.decode(grants.encode(GRANT)) == GRANT
    assert GRANT.seat("c") == C
    assert GRANT.seat("e") is None


@pytest.mark.parametrize("body", [None, {}, {"version": 2}, {"version": 1, "nodes": 3}])
def test_what_is_no_grant_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(BadGrantError):
        grants.decode(body)
