"""What every ledger keeps, whatever it is written on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.assess import assess
from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import (
    Accept,
    CloseIncident,
    Enlist,
    IssueGrant,
    LabelFiring,
    MoveAttempt,
    MoveNode,
    OpenAttempt,
    OpenIncident,
    Repair,
    RepairStep,
    SetAuthority,
    SettleOrder,
    StartAgent,
    SweepNode,
    key,
)
from orchestrator.core.detectors import Authority, Detector, Label
from orchestrator.core.firings import FiringLabel
from orchestrator.core.fleet import Cluster
from orchestrator.core.jobs import AttemptState, JobSpec, Outcome, UnlawfulStepError
from orchestrator.core.nodes import (
    ClusterName,
    JobName,
    Machine,
    MachineId,
    NodeName,
    NodeState,
    ProviderName,
    UnlawfulMoveError,
)
from orchestrator.core.observations import (
    AgentSeen,
    InventorySeen,
    MachineSeen,
    NodeReached,
    NodeUnreached,
    Observation,
    OrderKind,
    Power,
    Probed,
)
from orchestrator.core.pages import Page
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.ledger import Event, Ledger, StaleTokenError
from orchestrator.runtime.reports import AgentReport, Note, Stage

NOW = datetime(2026, 11, 1, 12, 0, 0, 123_456, tzinfo=UTC)
TTL = timedelta(seconds=20)
ASH, NODE, JOB = ClusterName("ash"), NodeName("ash-001"), JobName("train")
MACHINE = MachineSeen(NODE, "first", Machine(MachineId("m1")), Power.RUNNING, "boot-1")
SWEEP = SweepNode(NODE, JOB, 1, "its agent is silent")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def token(ledger: Ledger) -> int:
    taken = ledger.acquire("me", TTL, NOW)
    assert taken is not None
    return taken


def enlist(ledger: Ledger, token: int) -> None:
    ledger.apply(token, Enlist(ASH, "local", MACHINE, "listed for the first time"), NOW)


def report(*notes: Note) -> AgentReport:
    return AgentReport(
        protocol=1,
        node=NODE,
        job=JOB,
        attempt=1,
        agent="life-1",
        boot_id="boot-1",
        pid=1,
        host="127.0.0.1",
        port=1,
        at=NOW.timestamp(),
        started_at=NOW.timestamp(),
        stage=Stage.RUNNING,
        grant=1,
        token=1,
        generation=1,
        generation_seq=2,
        members=(NODE,),
        peers_lost=(),
        ranks=(),
        notes=notes,
    )


def test_one_holder_at_a_time_and_every_taking_grows_the_token(ledger: Ledger) -> None:
    assert ledger.acquire("a", TTL, NOW) == 1
    assert ledger.acquire("b", TTL, after(1)) is None
    assert ledger.renew(1, TTL, after(15))
    assert ledger.acquire("b", TTL, after(21)) is None
    assert ledger.acquire("b", TTL, after(36)) == 2
    assert not ledger.renew(1, TTL, after(37))
    held = ledger.holder()
    assert held is not None
    assert (held.name, held.token) == ("b", 2)


def test_a_lease_given_back_is_free_at_once(ledger: Ledger) -> None:
    assert ledger.acquire("a", TTL, NOW) == 1
    ledger.release(1)
    assert ledger.holder() is None
    assert ledger.acquire("b", TTL, after(1)) == 2
    ledger.release(1)  # an old token gives nothing back
    assert ledger.holder() is not None


def test_a_holder_that_comes_back_takes_a_new_token(ledger: Ledger) -> None:
    assert ledger.acquire("a", TTL, NOW) == 1
    assert ledger.acquire("a", TTL, after(1)) == 2


def test_no_write_of_an_old_controller_lands(ledger: Ledger, token: int) -> None:
    enlist(ledger, token)
    assert ledger.acquire("other", TTL, after(60)) is not None
    before = ledger.snapshot(after(61), ())
    writes: list[Callable[[], object]] = [
        lambda: ledger.record(token, [NodeUnreached(NODE, NOW, "no route")], NOW, assess),
        lambda: ledger.apply(token, OpenIncident(Page.NO_SPARE, JOB, "none"), NOW),
        lambda: ledger.intend(token, SWEEP, NOW, NOW),
        lambda: ledger.settle(token, key(SWEEP), NOW, ok=True, text="", data={}),
        lambda: ledger.event(token, Event(NOW, "x", (), "x"), NOW),
        lambda: ledger.prune(token, NOW),
    ]
    for write in writes:
        with pytest.raises(StaleTokenError):
            write()
    assert ledger.snapshot(after(61), ()) == before


def test_observations_and_the_beliefs_that_follow_are_written_together(
    ledger: Ledger, token: int
) -> None:
    seen: list[Observation] = [
        InventorySeen(ASH, "local", NOW, (MACHINE,)),
        NodeUnreached(NODE, after(1), "no route to host"),
    ]
    believed = ledger.record(token, seen, after(2), assess)
    assert believed == assess(Beliefs(), seen, after(2))
    assert ledger.snapshot(after(3), ()).beliefs == believed


def test_beliefs_are_equal_however_the_observations_are_cut(ledger: Ledger, token: int) -> None:
    seen: list[Observation] = [
        InventorySeen(ASH, "local", NOW, (MACHINE,)),
        NodeUnreached(NODE, after(1), "no route"),
        AgentSeen(NODE, after(2), report()),
    ]
    for one in seen:
        ledger.record(token, [one], after(3), assess)
    assert ledger.snapshot(after(3), ()).beliefs == assess(Beliefs(), seen, after(3))


def test_a_note_of_an_agent_becomes_one_event_however_often_it_is_repeated(
    ledger: Ledger, token: int
) -> None:
    note = Note(1, NOW.timestamp(), "rank-exited", "rank 1 ended by signal 9", {"rank": 1})
    for second in range(3):
        ledger.record(token, [AgentSeen(NODE, after(second), report(note))], after(5), assess)
    (event,) = [one for one in ledger.story(NODE) if one.kind == "rank-exited"]
    assert event.at == NOW
    assert event.data == {"rank": 1}
    assert event in ledger.story("train/1")
    assert event.actor == "agent ash-001"


def test_a_decision_changes_the_state_and_tells_why_in_one_breath(
    ledger: Ledger, token: int
) -> None:
    enlist(ledger, token)
    move = MoveNode(NODE, NodeState.BURN_IN, NodeState.SPARE, "30 healthy minutes")
    ledger.apply(token, move, after(1))
    node = ledger.snapshot(after(2), ()).nodes[NODE]
    assert (node.state, node.since, node.reason) == (NodeState.SPARE, after(1), move.reason)
    assert ledger.story(NODE)[-1].text.endswith("30 healthy minutes")


def test_a_decision_that_is_unlawful_changes_and_tells_nothing(ledger: Ledger, token: int) -> None:
    enlist(ledger, token)
    told = ledger.story(None)
    with pytest.raises(UnlawfulMoveError):
        ledger.apply(token, MoveNode(NODE, NodeState.SPARE, NodeState.IN_USE, "no"), NOW)
    assert ledger.story(None) == told
    assert ledger.snapshot(NOW, ()).nodes[NODE].state is NodeState.BURN_IN


def test_jobs_attempts_and_grants_are_kept_with_their_history(ledger: Ledger, token: int) -> None:
    ledger.apply(token, Accept(JOB, JobSpec(1, 1, budget={"hang": 3}), "submitted"), NOW)
    ledger.apply(token, OpenAttempt(JOB, 1, ASH, "nodes are there"), NOW)
    for number in (1, 2):
        address = ((NODE, f"127.0.0.1:{number}#x"),)
        ledger.apply(token, IssueGrant(JOB, 1, number, (NODE,), (), address, "seats"), NOW)
    assert [one.number for one in ledger.grants(JOB, 1)] == [1, 2]
    closing = MoveAttempt(JOB, 1, AttemptState.CLOSING, "lost", Outcome.MOVED)
    ledger.apply(token, closing, NOW)
    ledger.apply(token, MoveAttempt(JOB, 1, AttemptState.CLOSED, "gone"), NOW)
    ledger.apply(token, OpenAttempt(JOB, 2, ASH, "again"), NOW)
    assert [one.number for one in ledger.attempts(JOB)] == [1, 2]
    assert [one.number for one in ledger.snapshot(NOW, ()).attempts] == [2]
    assert ledger.attempts(JOB)[0].outcome is Outcome.MOVED
    assert ledger.jobs()[0].spec.budget == {"hang": 3}


def test_an_intent_is_open_once_and_settled_once(ledger: Ledger, token: int) -> None:
    intent = ledger.intend(token, SWEEP, NOW, after(60))
    assert intent is not None
    assert ledger.intend(token, SWEEP, after(1), after(61)) is None
    assert ledger.snapshot(NOW, ()).intents == (intent,)
    ledger.settle(token, intent.key, after(2), ok=False, text="no route", data={})
    ledger.settle(token, intent.key, after(3), ok=True, text="late", data={})
    assert ledger.snapshot(NOW, ()).intents == ()
    assert ledger.intend(token, SWEEP, after(4), after(64)) is not None
    first, second = ledger.settlements()
    assert (first.ok, first.text, first.tries) == (False, "no route", 1)
    assert (second.ok, second.tries) == (None, 2)


def test_what_counts_against_a_budget_is_remembered_for_a_day(ledger: Ledger, token: int) -> None:
    ledger.intend(token, StartAgent(NODE, JOB, 1, 0, "seated"), NOW, NOW)
    ledger.intend(token, Repair(NODE, RepairStep.REBOOT, 0, "no power"), after(1), NOW)
    used = ledger.snapshot(after(2), ()).used
    assert [(one.kind, one.subject) for one in used] == [
        ("agent-start", "ash-001/train/1"),
        ("reboot", "ash-001"),
    ]
    assert ledger.snapshot(NOW + timedelta(days=1, seconds=3), ()).used == ()


def test_incidents_open_once_and_keep_their_number_when_they_end(
    ledger: Ledger, token: int
) -> None:
    ledger.apply(token, OpenIncident(Page.NO_SPARE, JOB, "none is left"), NOW)
    (incident,) = ledger.incidents(open_only=True)
    assert incident.number > 0
    ledger.remember_alert(token, incident.number, {"thread": "1.2"})
    ledger.apply(token, CloseIncident(Page.NO_SPARE, JOB, "one is back"), after(9))
    assert ledger.incidents(open_only=True) == ()
    (closed,) = ledger.incidents(open_only=False)
    assert (closed.number, closed.closed_at) == (incident.number, after(9))
    assert ledger.alert_states() == {incident.number: {"thread": "1.2"}}


def test_an_order_waits_without_a_daemon_and_is_answered_once(ledger: Ledger) -> None:
    number = ledger.order(OrderKind.CORDON, NODE, "ann", "fan noise", {}, NOW)
    (waiting,) = ledger.orders_open()
    assert (waiting.number, waiting.by, waiting.at) == (number, "ann", NOW)
    assert ledger.order_answer(number) is None
    token = ledger.acquire("me", TTL, NOW)
    assert token is not None
    ledger.record(token, ledger.orders_open(), NOW, assess)
    assert ledger.snapshot(NOW, ()).beliefs.orders == (waiting,)
    ledger.apply(token, SettleOrder(number, True, "cordoned"), NOW)
    assert ledger.order_answer(number) == (True, "cordoned")
    assert ledger.orders_open() == ()
    assert ledger.snapshot(NOW, ()).beliefs.orders == ()


def test_a_story_is_told_in_order_and_cut_at_its_beginning(ledger: Ledger, token: int) -> None:
    for second in (3, 1, 2):
        ledger.event(token, Event(after(second), "k", (NODE,), f"at {second}"), NOW)
    assert [one.text for one in ledger.story(NODE)] == ["at 1", "at 2", "at 3"]
    assert [one.text for one in ledger.story(NODE, limit=2)] == ["at 2", "at 3"]
    assert [one.text for one in ledger.story(NODE, since=after(2))] == ["at 2", "at 3"]
    assert ledger.story("nobody") == []


def test_events_of_some_kinds_are_read_on_behind_the_last_one(ledger: Ledger, token: int) -> None:
    for second, kind, subject in ((3, "a", NODE), (1, "b", NODE), (2, "c", NODE), (4, "a", "x")):
        ledger.event(token, Event(after(second), kind, (subject, "y"), f"at {second}"), NOW)
    first = ledger.told(NODE, {"a", "b"}, limit=1)
    assert [one.text for one in first] == ["at 3"]
    rest = ledger.told(NODE, {"a", "b"}, after=first[-1].number)
    assert [one.text for one in rest] == ["at 1"]
    assert ledger.told(NODE, {"a", "b"}, after=rest[-1].number) == ()
    assert ledger.told("nobody", {"a"}) == ()


def test_a_move_tells_whose_seat_it_is_and_what_it_is_worth(ledger: Ledger, token: int) -> None:
    machine = Machine(MachineId("m-7"), accelerators=8, price_per_hour=20.0)
    seen = MachineSeen(NODE, "first", machine, Power.RUNNING)
    ledger.apply(token, Enlist(ASH, "fake", seen, "listed"), NOW)
    ledger.apply(token, Accept(JOB, JobSpec(1, 1), "submitted"), NOW)
    ledger.apply(token, OpenAttempt(JOB, 1, ASH, "nodes are there"), NOW)
    ledger.apply(token, MoveNode(NODE, NodeState.BURN_IN, NodeState.SPARE, "healthy"), NOW)
    seat = MoveNode(NODE, NodeState.SPARE, NodeState.IN_USE, "seated", job=JOB, attempt=1)
    ledger.apply(token, seat, NOW)
    ledger.apply(token, MoveNode(NODE, NodeState.IN_USE, NodeState.DRAINING, "leaves"), NOW)
    entered, left = ledger.told(JOB, {"MoveNode"})
    worth = {"job": JOB, "attempt": 1, "gpus": 8, "price_per_hour": 20.0}
    assert entered.data == {"start": "spare", "end": "in-use", **worth}
    assert left.data == {"start": "in-use", "end": "draining", **worth}


def test_old_observations_are_forgotten_and_beliefs_are_not(ledger: Ledger, token: int) -> None:
    believed = ledger.record(token, [InventorySeen(ASH, "l", NOW, (MACHINE,))], NOW, assess)
    assert ledger.prune(token, after(1)) == 1
    assert ledger.prune(token, after(1)) == 0
    assert ledger.snapshot(NOW, ()).beliefs == believed


def test_a_snapshot_carries_the_clusters_and_the_moment(ledger: Ledger) -> None:
    clusters = (Cluster(ASH, ProviderName("local"), frozenset({"reboot"})),)
    fleet = ledger.snapshot(NOW, clusters)
    assert (fleet.now, fleet.clusters) == (NOW, clusters)


def test_a_lease_given_back_is_not_renewed(ledger: Ledger, token: int) -> None:
    ledger.release(token)
    assert not ledger.renew(token, TTL, after(1))
    with pytest.raises(StaleTokenError):
        ledger.event(token, Event(NOW, "x", (), "x"), NOW)


def test_replaying_the_observations_gives_the_beliefs(ledger: Ledger, token: int) -> None:
    for second in range(4):
        seen: list[Observation] = [
            InventorySeen(ASH, "local", after(second), (MACHINE,)),
            AgentSeen(NODE, after(second), report(Note(second, 1.0, "commit", "step 1"))),
            NodeUnreached(NODE, after(second + 0.5), "no route"),
        ]
        ledger.record(token, seen, after(second + 1), assess)
    beliefs, number = Beliefs(), 0
    while kept := ledger.observed(after=number, limit=5):
        number = kept[-1].number
        beliefs = assess(beliefs, [one.observation for one in kept], kept[-1].recorded_at)
    assert number == 12
    assert beliefs == ledger.snapshot(after(9), ()).beliefs


def test_what_the_controller_notices_is_told_with_the_beliefs(ledger: Ledger, token: int) -> None:
    for second in (1, 2):
        ledger.record(token, [NodeUnreached(NODE, after(second), "no route")], after(3), assess)
    (event,) = ledger.story(NODE)
    assert (event.kind, event.at, event.recorded_at) == ("node-unreached", after(1), after(3))


def test_an_order_and_its_answer_are_in_the_story_of_its_subject(
    ledger: Ledger, token: int
) -> None:
    number = ledger.order(OrderKind.CORDON, NODE, "ann", "fan noise", {}, NOW)
    ledger.record(token, ledger.orders_open(), after(1), assess)
    ledger.apply(token, SettleOrder(number, True, "it is cordoned"), after(2))
    asked, answered = ledger.story(NODE)
    assert (asked.actor, asked.data) == ("operator ann", {"order": number})
    assert "fan noise" in asked.text
    assert (answered.kind, answered.at) == ("SettleOrder", after(2))


def test_a_snapshot_shares_what_did_not_change(ledger: Ledger, token: int) -> None:
    enlist(ledger, token)
    other = NodeName("ash-002")
    ledger.record(
        token, [NodeUnreached(NODE, NOW, "x"), NodeUnreached(other, NOW, "x")], NOW, assess
    )
    before = ledger.snapshot(after(1), ())
    ledger.record(token, [NodeReached(other, after(2), "b")], after(2), assess)
    now = ledger.snapshot(after(3), ())
    assert now.nodes[NODE] is before.nodes[NODE]
    assert now.beliefs.nodes[NODE] is before.beliefs.nodes[NODE]
    assert now.beliefs.nodes[other] != before.beliefs.nodes[other]


def test_a_fold_that_fails_records_nothing(ledger: Ledger, token: int) -> None:
    def broken(*_: object) -> Beliefs:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.record(token, [NodeUnreached(NODE, NOW, "no route")], NOW, broken)
    assert ledger.observed() == ()
    assert ledger.snapshot(NOW, ()).beliefs == Beliefs()


def test_an_outcome_keeps_its_data(ledger: Ledger, token: int) -> None:
    ledger.intend(token, SWEEP, NOW, after(60))
    ledger.settle(token, key(SWEEP), after(1), ok=True, text="gone", data={"seconds": 1.5})
    (settled,) = ledger.settlements()
    assert (settled.data, settled.settled_at) == ({"seconds": 1.5}, after(1))
    assert ledger.story(NODE)[-1].kind == "SweepNode-done"


def test_what_is_far_older_than_a_budget_is_forgotten_with_the_observations(
    ledger: Ledger, token: int
) -> None:
    ledger.intend(token, StartAgent(NODE, JOB, 1, 0, "seated"), NOW, NOW)
    ledger.prune(token, NOW + timedelta(hours=12))
    assert len(ledger.snapshot(after(1), ()).used) == 1


def test_labels_and_authorities_are_kept(ledger: Ledger, token: int) -> None:
    enlist(ledger, token)
    bad = Severity.CRITICAL, FaultClass.HARDWARE, "gone", Channel.NODE, NOW
    seen = Probed(NODE, NOW, "boot-1", (Finding("xid", "gpu5", *bad, code="79"),), complete=True)
    ledger.record(token, [seen], NOW, assess)
    where = (NODE, "xid:79", Channel.NODE, NOW)
    ledger.apply(token, LabelFiring(*where, FiringLabel.WRONG, "it served"), after(1))
    ledger.apply(token, SetAuthority("xid:79", Authority.OBSERVE, "0 of 1 right"), after(2))
    beliefs = ledger.snapshot(after(3), ()).beliefs
    assert [one.label for one in beliefs.nodes[NODE].firings] == [FiringLabel.WRONG]
    record = beliefs.detectors["xid:79"]
    assert (record.wrong, record.authority, record.since) == (1, Authority.OBSERVE, after(2))
    assert record == Detector("xid:79").told(
        Label(NODE, NOW, after(1), right=False, reason="it served")
    ).given(Authority.OBSERVE, after(2), "0 of 1 right")
    told = [event.text for event in ledger.story("xid:79")]
    assert told == [
        "xid:79 on ash-001 was wrong: it served",
        "xid:79 is only a suspicion from now on: 0 of 1 right",
    ]
    with pytest.raises(UnlawfulStepError):
        ledger.apply(token, LabelFiring(*where, FiringLabel.RIGHT, "late"), after(3))
