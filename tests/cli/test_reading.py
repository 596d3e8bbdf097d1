from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.fleet import _who
from orchestrator.cli.output import plain
from orchestrator.cli.views import controller_row
from orchestrator.core.decisions import MoveNode, SetCadence, SetCordon
from orchestrator.core.explain import explain
from orchestrator.core.nodes import Cordon, JobName, NodeName, NodeState
from orchestrator.daemon.holder import holder
from orchestrator.ledger import Event
from orchestrator.ledger.api import Holder
from tests.cli.conftest import Holdfast, Story

XID = "CRITICAL xid:79 on gpu5"


def test_node_list_shows_the_reason_beside_the_state(holdfast: Holdfast, story: Story) -> None:
    result = holdfast("node", "list")
    assert result.exit_code == 0, result.stderr
    header, *lines = result.stdout.splitlines()
    assert header.split()[-2:] == ["STATE", "REASON"]
    assert len(lines) == 4
    assert "quarantined" in lines[-1]
    assert "CRITICAL xid:79 on gpu5 (10m" in lines[-1]
    assert "train/1" in lines[0]


def test_a_cordon_is_shown_with_who_and_when(holdfast: Holdfast, story: Story) -> None:
    cordon = Cordon("operator:bob", "fan noise", story.now)
    story.decide(SetCordon(NodeName("a-003"), cordon, "cordoned by bob"))
    told = holdfast("node", "list", "--state", "spare").stdout
    assert "cordoned by operator:bob 10m" in told
    assert "fan noise" in told


def test_a_cordon_without_a_reason_leaves_no_gap(holdfast: Holdfast, story: Story) -> None:
    story.decide(SetCordon(NodeName("a-003"), Cordon("operator:bob", "", story.now), "by bob"))
    told = holdfast("node", "list", "--state", "spare").stdout
    assert " ago; healthy" in told


def test_status_names_the_controller_by_host_and_process() -> None:
    assert _who("vm/0b51-4c/4711/99812") == "vm, process 4711"
    assert _who("someone") == "someone"


def test_an_empty_list_of_incidents_says_where_the_others_are(holdfast: Holdfast) -> None:
    result = holdfast("incident", "list")
    assert result.exit_code == 0
    assert "--all" in result.stderr


def test_nodes_are_the_same_in_json_and_yaml(holdfast: Holdfast, story: Story) -> None:
    as_json = json.loads(holdfast("node", "list", "--cluster", "b", "-o", "json").stdout)
    as_yaml = yaml.safe_load(holdfast("node", "list", "--cluster", "b", "-o", "yaml").stdout)
    assert [one["node"] for one in as_json] == [one["node"] for one in as_yaml] == ["b-001"]
    assert as_json[0]["state"] == "quarantined"
    assert as_json[0]["price_per_hour"] == 2.5


def test_node_show_tells_one_node(holdfast: Holdfast, story: Story) -> None:
    row = json.loads(holdfast("node", "show", "a-001", "-o", "json").stdout)
    assert (row["machine"], row["state"], row["job"]) == ("local-a-001", "in-use", "train/1")
    assert "IN-USE" in holdfast("node", "show", "a-001").stdout.upper()


@pytest.mark.parametrize(
    "command",
    [
        ("node", "show", "a-009"),
        ("node", "cordon", "a-009"),
        ("node", "uncordon", "a-009"),
        ("node", "drain", "a-009", "--yes"),
        ("node", "quarantine", "a-009", "--yes"),
        ("node", "release", "a-009"),
        ("node", "list", "--cluster", "z"),
        ("cluster", "show", "z"),
        ("job", "show", "trains"),
        ("job", "stop", "trains", "--yes"),
        ("job", "logs", "trains"),
        ("attempt", "list", "trains"),
        ("incident", "show", "99"),
        ("runbook", "show", "no-spar"),
        ("why", "a-009"),
        ("why", "train/7"),
        ("checkpoint", "list", "nowhere"),
        ("checkpoint", "verify", "ftp://bucket/x"),
    ],
)
def test_an_unknown_thing_exits_with_2(
    holdfast: Holdfast, story: Story, command: tuple[str, ...]
) -> None:
    result = holdfast(*command)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""


def test_an_unknown_node_is_told_a_near_one(holdfast: Holdfast, story: Story) -> None:
    assert "did you mean 'a-00" in holdfast("node", "show", "a-009").stderr


def test_clusters_are_counted_by_state(holdfast: Holdfast, story: Story) -> None:
    rows = json.loads(holdfast("cluster", "list", "-o", "json").stdout)
    assert (rows[0]["nodes"], rows[0]["in_use"], rows[0]["spare"]) == (3, 2, 1)
    assert rows[1]["other"] == {"quarantined": 1}
    shown = holdfast("cluster", "show", "a").stdout
    assert "reboot" in shown
    assert "a-003" in shown


def test_status_is_one_page(holdfast: Holdfast, story: Story) -> None:
    result = holdfast("status")
    assert result.exit_code == 0, result.stderr
    for word in ("CONTROLLER", "CLUSTER", "train", "no-spare"):
        assert word in result.stdout
    assert "no controller runs" in result.stderr


def test_status_check_exits_with_3_if_something_needs_a_person(
    holdfast: Holdfast, story: Story
) -> None:
    result = holdfast("status", "--check", "-o", "json")
    assert result.exit_code == 3
    page = json.loads(result.stdout)
    assert len(page["problems"]) == 2  # no controller, and a page; an alert alone is no problem
    assert page["jobs"][0]["attempt"] == 1


def test_jobs_and_attempts_are_listed(holdfast: Holdfast, story: Story) -> None:
    job = json.loads(holdfast("job", "list", "-o", "json").stdout)[0]
    assert (job["job"], job["state"], job["cluster"]) == ("train", "running", "a")
    assert job["nodes"] == ["a-001", "a-002"]
    attempt = json.loads(holdfast("attempt", "list", "train", "-o", "json").stdout)[0]
    assert (attempt["attempt"], attempt["state"], attempt["grant"]) == (1, "open", 1)


def test_job_show_names_variables_but_not_their_values(holdfast: Holdfast, story: Story) -> None:
    for output in ("table", "json", "yaml"):
        told = holdfast("job", "show", "train", "-o", output).stdout
        assert "TOKEN" in told
        assert "t0p" not in told


def test_incidents_are_shown_with_their_runbook(holdfast: Holdfast, story: Story) -> None:
    rows = json.loads(holdfast("incident", "list", "-o", "json").stdout)
    assert {row["page"]: row["urgency"] for row in rows} == {
        "no-spare": "page",
        "restarts": "alert",
    }
    result = holdfast("incident", "show", str(rows[0]["number"]))
    assert "holdfast runbook show no-spare" in result.stdout + result.stderr


def test_why_names_evidence_decision_and_time(holdfast: Holdfast, story: Story) -> None:
    result = holdfast("why", "b-001")
    assert result.exit_code == 0, result.stderr
    evicted = MoveNode(NodeName("b-001"), NodeState.SPARE, NodeState.QUARANTINED, XID)
    assert explain(evicted) in result.stdout
    assert story.now.astimezone().strftime("%Y-%m-%d %H:%M:%S") in result.stdout
    body = json.loads(holdfast("why", "b-001", "-o", "json").stdout)
    assert body["now"]["state"] == "quarantined"
    assert [event["kind"] for event in body["story"]] == ["Enlist", "MoveNode", "MoveNode"]


def test_why_knows_jobs_attempts_and_clusters(holdfast: Holdfast, story: Story) -> None:
    for subject in ("train", "train/1", "a"):
        assert holdfast("why", subject).exit_code == 0
    assert "two nodes are free" in holdfast("why", "train/1").stdout


def test_why_can_be_limited_in_time(holdfast: Holdfast, story: Story) -> None:
    assert json.loads(holdfast("why", "train", "--since", "1m", "-o", "json").stdout)["story"] == []
    assert json.loads(holdfast("why", "train", "--since", "1h", "-o", "json").stdout)["story"]
    assert holdfast("why", "train", "--since", "soon").exit_code == 2


def test_what_a_node_says_cannot_steer_the_terminal(holdfast: Holdfast, story: Story) -> None:
    event = Event(story.now, "note", ("a-001",), "red \x1b[31m [bold]markup[/]")
    story.ledger.event(story.token, event, story.now)
    told = holdfast("why", "a-001").stdout
    assert "\x1b" not in told
    assert "[bold]markup[/]" in told


def test_plan_tells_the_decisions_and_writes_nothing(holdfast: Holdfast, story: Story) -> None:
    before = story.ledger.story(None)
    result = holdfast("plan", "-o", "json")
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert all(set(one) == {"kind", "sentence", "decision"} for one in body["decisions"])
    assert holdfast("plan").exit_code == 0
    assert story.ledger.story(None) == before


def test_plan_counts_in_what_people_ask_for(holdfast: Holdfast, story: Story) -> None:
    holdfast("node", "cordon", "a-003", "--reason", "fan")
    assert "by ann: fan" in holdfast("plan").stdout


def test_runbooks_are_shown(holdfast: Holdfast, home: Path) -> None:
    rows = json.loads(holdfast("runbook", "list", "-o", "json").stdout)
    assert "no-spare" in {row["page"] for row in rows}
    assert holdfast("runbook", "show", "no-spare").stdout.startswith("# ")


def test_the_ledger_can_be_upgraded(holdfast: Holdfast) -> None:
    result = holdfast("db", "upgrade")
    assert result.exit_code == 0, result.stderr


def test_a_node_that_leaves_is_shown_with_its_new_state(holdfast: Holdfast, story: Story) -> None:
    story.now += timedelta(minutes=5)
    end = NodeState.RETIRED
    story.decide(MoveNode(NodeName("b-001"), NodeState.QUARANTINED, end, "returned"))
    assert "returned (5m" in holdfast("node", "list", "--state", "retired").stdout


def test_plain_data_is_json_s_own() -> None:
    told = plain({"a": (1, timedelta(seconds=2)), "b": frozenset({"y", "x"}), "c": Path("/z")})
    assert told == {"a": [1, 2.0], "b": ["x", "y"], "c": "/z"}


def test_a_controller_that_was_killed_is_nobody_before_its_lease_ends() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ours = holder()
    until = now + timedelta(seconds=20)
    assert controller_row(Holder(ours, 1, until), now)["alive"]
    another_boot = "/".join([ours.split("/")[0], "another-boot", *ours.split("/")[2:]])
    assert not controller_row(Holder(another_boot, 1, until), now)["alive"]


def test_chaos_takes_the_only_job_that_runs(holdfast: Holdfast, story: Story) -> None:
    result = holdfast("chaos", "kill-rank")
    assert "no running rank of train" in result.stderr


def test_chaos_asks_for_a_job_where_none_runs(holdfast: Holdfast) -> None:
    result = holdfast("chaos", "kill-rank")
    assert result.exit_code == 2
    assert "no job runs: give --job NAME" in result.stderr


def test_the_phase_of_each_cohort_is_shown_with_its_rate_and_interval(
    holdfast: Holdfast, story: Story
) -> None:
    listed = holdfast("node", "list").stdout.splitlines()
    assert "PHASE" in listed[0]
    assert "P(STABLE)" in listed[0]
    assert "stable" in listed[1]
    rows = json.loads(holdfast("status", "-o", "json").stdout)["cohorts"]
    assert [(one["cluster"], one["cohort"], one["nodes"]) for one in rows] == [
        ("a", "first", 3),
        ("b", "first", 1),
    ]
    assert rows[0]["p_stable"] == 0.4  # nothing was seen yet: it was just handed over
    assert rows[0]["failures_per_node_week"].endswith("]")
    assert "COHORT" in holdfast("cluster", "show", "a").stdout
    assert "COHORT" in holdfast("status").stdout


def test_the_interval_between_checkpoints_is_shown(holdfast: Holdfast, story: Story) -> None:
    story.decide(SetCadence(JobName("train"), 1, timedelta(minutes=12), "20 failures a week"))
    assert json.loads(holdfast("job", "show", "train", "-o", "json").stdout)[
        "checkpoint_every"
    ] == ("12m")
    assert "12m" in holdfast("job", "show", "train").stdout
    assert "writes a checkpoint each 12m" in holdfast("why", "train").stdout
