"""The ledger's state changes lawfully or not at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.decisions import (
    Accept,
    CloseIncident,
    Enlist,
    GiveGrant,
    IssueGrant,
    LedgerOnly,
    MoveAttempt,
    MoveJob,
    MoveNode,
    OpenAttempt,
    OpenIncident,
    SettleOrder,
    key,
)
from orchestrator.core.enact import enact, intend, uses
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import (
    ATTEMPT_MOVES,
    JOB_MOVES,
    AttemptState,
    JobSpec,
    JobState,
    Outcome,
    UnlawfulStepError,
)
from orchestrator.core.nodes import (
    MOVES,
    ClusterName,
    JobName,
    NodeName,
    NodeState,
    UnlawfulMoveError,
)
from orchestrator.core.pages import Page
from tests.core.test_stories import started

FLEET = started({"a": 3}).fleet
JOB, A1 = JobName("train"), NodeName("a-1")


def after(*decisions: LedgerOnly, fleet: Fleet = FLEET) -> Fleet:
    for decision in decisions:
        fleet = enact(fleet, decision, fleet.now)
    return fleet


@pytest.mark.parametrize("start", NodeState)
@pytest.mark.parametrize("end", NodeState)
def test_every_move_of_a_node_is_in_the_table_or_raises(start: NodeState, end: NodeState) -> None:
    node = replace(FLEET.nodes[A1], state=start)
    fleet = replace(FLEET, nodes={A1: node})
    move = MoveNode(A1, start, end, "")
    if end in MOVES[start]:
        assert after(move, fleet=fleet).nodes[A1].state is end
    else:
        with pytest.raises(UnlawfulMoveError):
            after(move, fleet=fleet)


def test_a_node_that_moved_meanwhile_is_left_where_it_is() -> None:
    with pytest.raises(UnlawfulMoveError, match="in-use"):
        after(MoveNode(A1, NodeState.SPARE, NodeState.BURN_IN, ""))


def test_what_exists_is_not_made_twice() -> None:
    seen = FLEET.beliefs.nodes[A1].seen
    assert seen is not None
    with pytest.raises(UnlawfulMoveError):
        after(Enlist(ClusterName("a"), "sim", seen, ""))
    with pytest.raises(UnlawfulStepError):
        after(Accept(JOB, JobSpec(1, 1), ""))
    with pytest.raises(UnlawfulStepError):
        after(OpenAttempt(JOB, 1, ClusterName("a"), ""))


@pytest.mark.parametrize("end", [JobState.STOPPED, JobState.RUNNING])
def test_a_job_makes_lawful_steps_only(end: JobState) -> None:
    assert end not in JOB_MOVES[JobState.RUNNING]
    with pytest.raises(UnlawfulStepError):
        after(MoveJob(JOB, end, ""))


def test_an_attempt_makes_lawful_steps_only() -> None:
    assert AttemptState.CLOSED not in ATTEMPT_MOVES[AttemptState.OPEN]
    with pytest.raises(UnlawfulStepError, match="attempt 1 of train"):
        after(MoveAttempt(JOB, 1, AttemptState.CLOSED, ""))
    with pytest.raises(KeyError):
        after(MoveAttempt(JOB, 9, AttemptState.CLOSED, ""))


def test_failures_that_are_alike_are_counted_until_something_is_committed() -> None:
    def failed(commits: int) -> MoveAttempt:
        closing, how = AttemptState.CLOSING, Outcome.FAILED
        return MoveAttempt(JOB, 1, closing, "", how, fingerprint="exit 1", commits=commits)

    fleet = after(failed(2))
    assert fleet.jobs[JOB].alike == 1
    again = replace(fleet, attempts=FLEET.attempts)
    assert after(failed(2), fleet=again).jobs[JOB].alike == 2
    assert after(failed(3), fleet=again).jobs[JOB].alike == 1


def test_closed_attempts_leave_the_snapshot_when_another_was_opened() -> None:
    closing, closed = AttemptState.CLOSING, AttemptState.CLOSED
    fleet = after(MoveAttempt(JOB, 1, closing, "", Outcome.MOVED), MoveAttempt(JOB, 1, closed, ""))
    assert [one.number for one in fleet.attempts] == [1]
    fleet = after(OpenAttempt(JOB, 2, ClusterName("a"), ""), fleet=fleet)
    assert [one.number for one in fleet.attempts] == [2]


def test_incidents_open_and_close_by_page_and_subject() -> None:
    fleet = after(OpenIncident(Page.NO_SPARE, "x", ""), OpenIncident(Page.NO_SPARE, "y", ""))
    fleet = after(CloseIncident(Page.NO_SPARE, "x", ""), fleet=fleet)
    assert [one.subject for one in fleet.incidents] == ["y"]


def test_an_order_is_answered_once() -> None:
    fleet = after(SettleOrder(4, True, ""), SettleOrder(2, True, ""))
    assert fleet.beliefs.answered[-2:] == (2, 4)


def test_a_grant_keeps_what_it_was_issued_with() -> None:
    names = (A1,)
    fleet = after(IssueGrant(JOB, 1, 7, names, (), ((A1, "h:1#p"),), "why"))
    grant = fleet.attempts[0].grant
    assert grant is not None
    assert (grant.number, grant.seats, grant.issued_at) == (7, names, FLEET.now)


def test_an_intent_has_a_deadline_and_counts_only_what_has_a_budget() -> None:
    give = GiveGrant(A1, JOB, 1, 1, "p", "why")
    fleet = intend(FLEET, give, token=3, limit=timedelta(seconds=9))
    intent = fleet.intents[-1]
    assert (intent.key, intent.token) == (key(give), 3)
    assert intent.deadline == FLEET.now + timedelta(seconds=9)
    assert fleet.used == FLEET.used
    evicted = MoveNode(A1, NodeState.IN_USE, NodeState.QUARANTINED, "", counts="eviction")
    used = uses(FLEET, evicted, FLEET.now)
    assert used is not None
    assert (used.kind, used.subject) == ("eviction", "a/c1")


def test_the_same_wish_for_another_reason_has_the_same_key() -> None:
    one, other = (GiveGrant(A1, JOB, 1, 1, "p", reason) for reason in ("this", "that"))
    assert key(one) == key(other)
