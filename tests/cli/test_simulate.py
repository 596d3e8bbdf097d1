"""`holdfast simulate` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import main

FLEET = """\
clusters:
  - name: a
    provider: acme
    cohorts:
      - {name: one, nodes: 6, failures_per_node_week: 2}
jobs:
  - {name: train, nodes: 4}
days: 3
"""


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["simulate", *words])
    return result.exit_code, result.stdout if result.exit_code == 0 else result.stderr


def test_a_fleet_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(FLEET)
    code, said = run("--fleet", str(file), "--seed", "2", "-o", "json", "--explain")
    assert code == 0, said
    answer = json.loads(said)
    assert answer["nodes"] == 6
    assert answer["jobs"][0]["job"] == "train"
    assert answer["healthy_jobs_killed"] == 0
    assert answer["story"]


def test_the_example_is_a_fleet() -> None:
    file = Path(__file__).parents[2] / "examples" / "fleet.yaml"
    code, said = run("--fleet", str(file), "--days", "0.5", "-o", "json")
    assert code == 0, said
    answer = json.loads(said)
    assert answer["nodes"] == 84
    assert answer["jobs"][0]["job"] == "big"


def test_mistakes_in_a_fleet_are_told_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(FLEET.replace("nodes: 4", "nodes: four"))
    code, said = run("--fleet", str(file))
    assert code == 2
    assert "fleet.yaml:7: jobs[0].nodes: expected a whole number" in said


def test_a_trace_says_what_was_assumed(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("start_at,end_at,node,cause\n0,3600,n1,gpu\n7200,9000,n2,power\n")
    code, said = run("--trace", str(file), "--nodes", "5", "-o", "json")
    assert code == 0, said
    answer = json.loads(said[said.index("{") :])
    assert answer["failures"] == 2
    assert answer["healthy_jobs_killed"] == 0
    assert 0.9 < answer["ettr"] <= 1.0
    assert {"evictions", "ettr_baseline", "phases"} <= answer.keys()
    assert any("seconds since the trace's begin" in line for line in answer["assumed"])


def test_a_bad_trace_is_refused_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("start_at,end_at,node,cause\n0,3600,n1,gpu\nsoon,,n2,power\n")
    code, said = run("--trace", str(file), "--nodes", "5")
    assert code == 2
    assert "trace.csv:3: start_at: expected a time" in said


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--preset", "table4", "--fleet", "x"),
        ("--preset", "table4", "--nodes", "3"),
        ("--trace", "x.csv"),
        ("--preset", "table4", "--explain"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(words: tuple[str, ...]) -> None:
    assert run(*words)[0] == 2


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    fleet, policy = tmp_path / "fleet.yaml", tmp_path / "policy.yaml"
    fleet.write_text(FLEET)
    policy.write_text("policy:\n  standbys: 0\n")
    code, said = run("--fleet", str(fleet), "--policy", str(policy), "-o", "json")
    assert code == 0, said
    policy.write_text("policy:\n  standby: 0\n")
    code, said = run("--fleet", str(fleet), "--policy", str(policy))
    assert code == 2
    assert "policy.yaml:2" in said
