from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.cli.ask import place_order, tell_answer
from orchestrator.cli.session import Session
from orchestrator.cli.waiting import wait_for
from orchestrator.core.assess import assess
from orchestrator.core.decisions import Accept, MoveJob, SettleOrder
from orchestrator.core.jobs import JobSpec, JobState
from orchestrator.core.nodes import JobName
from orchestrator.core.observations import OrderKind
from orchestrator.errors import PermanentError
from orchestrator.runtime.replication import Replication
from orchestrator.runtime.spec import Replicate
from orchestrator.runtime.store import open_store
from tests.cli.conftest import TRAIN, Holdfast, Story, end_job
from tests.runtime.vaults import Story as Vaulted

JOB = "name: {name}\ncommand: [python, x.py]\n"


@pytest.mark.parametrize("verb", ["cordon", "uncordon", "drain", "quarantine", "release"])
def test_a_verb_on_a_node_becomes_an_order(holdfast: Holdfast, story: Story, verb: str) -> None:
    yes = ["--yes"] if verb in ("drain", "quarantine") else []
    result = holdfast("node", verb, "a-001", "--reason", "fan noise", *yes)
    assert result.exit_code == 0, result.stderr
    assert "is queued: no controller runs now" in result.stderr
    (order,) = story.ledger.orders_open()
    assert (order.kind, order.subject) == (OrderKind(verb), "a-001")
    assert (order.by, order.reason) == ("ann", "fan noise")


def test_a_change_or_a_count_is_announced(holdfast: Holdfast, story: Story) -> None:
    told = ("cluster", "announce", "a", "--reason", "new driver")
    assert holdfast(*told).exit_code == 0
    assert holdfast(*told, "--cohort", "first", "--failures", "20", "--weeks", "2").exit_code == 0
    change, count = story.ledger.orders_open()
    assert (change.kind, change.subject, change.body) == (OrderKind.ANNOUNCE, "a", {})
    assert (count.subject, count.body) == ("a/first", {"at_least": 20, "weeks": 2.0})
    assert holdfast("cluster", "announce", "z").exit_code == 2


@pytest.mark.parametrize(
    "command",
    [("node", "drain", "a-001"), ("node", "quarantine", "a-001"), ("job", "stop", "train")],
)
def test_what_takes_something_away_asks_first(
    holdfast: Holdfast, story: Story, command: tuple[str, ...]
) -> None:
    result = holdfast(*command)
    assert result.exit_code == 2
    assert "give --yes" in result.stderr
    assert story.ledger.orders_open() == ()


def test_another_name_may_be_given_for_who_asks(holdfast: Holdfast, story: Story) -> None:
    holdfast("job", "stop", "train", "--yes", "--by", "cron")
    assert story.ledger.orders_open()[0].by == "cron"


def settle(story: Story, number: int, *, done: bool) -> None:
    story.ledger.record(story.token, story.ledger.orders_open(), story.now, assess)
    story.decide(SettleOrder(number, done, "theirs to lift"))


def test_an_answer_is_told(home: Path, story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session()
    number = place_order(session, OrderKind.CORDON, "a-001", ("ann", ""), {})
    settle(story, number, done=True)
    assert tell_answer(session, number)
    assert capsys.readouterr().err == "theirs to lift\n"


def test_a_refusal_fails(home: Path, story: Story) -> None:
    session = Session()
    number = place_order(session, OrderKind.UNCORDON, "a-001", ("ann", ""), {})
    settle(story, number, done=False)
    with pytest.raises(PermanentError, match="refused: theirs to lift"):
        tell_answer(session, number)


def test_a_job_is_submitted(holdfast: Holdfast, story: Story, home: Path) -> None:
    (home / "job.yaml").write_text(JOB.format(name="second"))
    result = holdfast("job", "submit", "job.yaml")
    assert result.exit_code == 0, result.stderr
    assert "Useful commands" in result.stderr
    assert result.stdout == ""
    (order,) = story.ledger.orders_open()
    assert (order.kind, order.subject) == (OrderKind.SUBMIT, "second")
    assert order.body["launch"]["command"] == ["python", "x.py"]
    again = holdfast("job", "submit", "job.yaml")
    assert again.exit_code == 2
    assert "taken by a job that is submitted" in again.stderr
    waits = holdfast("job", "show", "second")
    assert "waits for a controller" in waits.stderr


def test_a_name_that_is_taken_is_refused_before_anybody_waits(
    holdfast: Holdfast, story: Story, home: Path
) -> None:
    (home / "job.yaml").write_text(JOB.format(name="train"))
    result = holdfast("job", "submit", "job.yaml")
    assert result.exit_code == 2
    assert "taken by a job that is running" in result.stderr
    assert holdfast("job", "submit", "job.yaml", "--name", "other").exit_code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nodes: two", "job.yaml:3: nodes: expected a whole number, got 'two'"),
        ("node: 2", "job.yaml:3: node: unknown key; did you mean 'nodes'?"),
        ("clusters: [c]", "no cluster is called 'c'"),
    ],
)
def test_a_mistake_in_a_job_file_exits_with_2_and_its_path(
    holdfast: Holdfast, story: Story, home: Path, line: str, said: str
) -> None:
    (home / "job.yaml").write_text(JOB.format(name="j") + line)
    result = holdfast("job", "submit", "job.yaml")
    assert result.exit_code == 2
    assert said in result.stderr
    assert story.ledger.orders_open() == ()


def test_a_job_too_big_for_the_fleet_is_warned_about(
    holdfast: Holdfast, story: Story, home: Path
) -> None:
    (home / "job.yaml").write_text(JOB.format(name="j") + "nodes: 9\n")
    assert "no allowed cluster has 9 nodes" in holdfast("job", "submit", "job.yaml").stderr


def test_waiting_ends_well_with_the_job(
    home: Path, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session()
    end_job(story, JobState.SUCCEEDED)
    wait_for(session, "train", order=99)
    told = capsys.readouterr().err
    assert "train is succeeded, attempt 1" in told
    assert told.endswith("train succeeded\n")


def test_waiting_fails_with_the_job(home: Path, story: Story) -> None:
    end_job(story, JobState.FAILED)
    with pytest.raises(PermanentError, match="train failed: budgets spent"):
        wait_for(Session(), "train", order=99)


def test_waiting_sees_the_end_that_comes_later(home: Path, story: Story) -> None:
    later = threading.Timer(0.1, end_job, (story, JobState.SUCCEEDED))
    later.start()
    wait_for(Session(), "train", order=99)
    later.join()


def test_waiting_for_a_refused_job_fails(home: Path, story: Story) -> None:
    session = Session()
    number = place_order(session, OrderKind.SUBMIT, "other", ("ann", ""), {})
    settle(story, number, done=False)
    with pytest.raises(PermanentError, match="refused"):
        wait_for(session, "other", number)


def test_a_live_controller_is_seen(holdfast: Holdfast, story: Story) -> None:
    story.ledger.acquire("another", timedelta(minutes=5), datetime.now(UTC))
    result = holdfast("status", "-o", "json")
    assert '"alive": true' in result.stdout


def test_stopping_a_job_that_is_over_is_answered_by_the_controller_not_here(
    holdfast: Holdfast, story: Story
) -> None:
    story.decide(MoveJob(TRAIN, JobState.FAILED, "x"))
    assert holdfast("job", "stop", "train", "--yes").exit_code == 0


def with_replica(story: Story, folder: Path) -> Vaulted:
    """Give the job a vault with two commits, the first of which is in its replica."""
    vaulted = Vaulted(open_store(str(folder / "vault")))
    vaulted.fence()
    vaulted.generation()
    vaulted.commit(1)
    replica = (folder / "copy").as_uri()
    Replication(vaulted.vault, open_store(replica), Replicate(), spool=folder).step()
    vaulted.commit(2)
    launch = {"replicas": [replica, (folder / "empty").as_uri()]}
    spec = JobSpec(1, 1, register=vaulted.vault.place, checkpoints=vaulted.vault.place)
    story.decide(Accept(JobName("big"), replace(spec, launch=launch), "submitted"))
    return vaulted


def test_a_replica_is_promoted_by_an_order_that_says_what_is_lost(
    holdfast: Holdfast, story: Story, tmp_path: Path
) -> None:
    with_replica(story, tmp_path)
    asked = ("job", "promote", "big", "--to", str(tmp_path / "copy"))
    refused = holdfast(*asked)
    assert refused.exit_code == 2
    assert "big goes on from step 1, committed " in refused.stderr
    assert holdfast(*asked, "--yes", "--lost", "--reason", "disks died").exit_code == 0
    (order,) = story.ledger.orders_open()
    assert (order.kind, order.subject, order.by) == (OrderKind.PROMOTE, "big", "ann")
    assert order.body == {"url": (tmp_path / "copy").as_uri(), "lost": True}


@pytest.mark.parametrize(
    ("place", "said"),
    [("elsewhere", "is no replica of big; it has: "), ("empty", "holds no checkpoint")],
)
def test_what_cannot_be_gone_on_from_is_not_promoted(
    holdfast: Holdfast, story: Story, tmp_path: Path, place: str, said: str
) -> None:
    with_replica(story, tmp_path)
    result = holdfast("job", "promote", "big", "--to", str(tmp_path / place), "--yes")
    assert result.exit_code == 2
    assert said in result.stderr
    assert story.ledger.orders_open() == ()
