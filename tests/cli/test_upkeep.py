"""`holdfast cluster doctor | up | down` and `job logs`, on nodes behind a real sshd."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from orchestrator.core.jobs import JobState
from orchestrator.engines.bundle import bundle
from orchestrator.runtime.place import Place
from tests.cli.conftest import Holdfast, Story, end_job
from tests.system.test_ssh_cluster import ssh_cluster
from tests.transports.conftest import sshd
from tests.transports.sshd import Sshd

__all__ = ["sshd"]


@pytest.fixture
def far(home: Path, sshd: Sshd) -> Path:
    """Cluster `a` of the story is behind SSH now; return its folder there."""
    folder = home / "far"
    cluster: dict[str, Any] = {"name": "a", **ssh_cluster(sshd, folder, 3)}
    cluster["ssh"]["user"] = pwd.getpwuid(os.getuid()).pw_name  # the story's USER is another one
    cluster["nodes"] = [{**one, "name": f"a-00{i}"} for i, one in enumerate(cluster["nodes"], 1)]
    configure(home, cluster)
    return folder


def configure(home: Path, cluster: dict[str, object]) -> None:
    body = {"clusters": [cluster], "health": {"expect_gpus": 0}}
    (home / "holdfast.yaml").write_text(yaml.safe_dump(body))


def rows(result: Result) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(result.stdout)
    return found


def test_a_cluster_is_prepared_once_and_given_back(holdfast: Holdfast, far: Path) -> None:
    first = holdfast("cluster", "up", "a", "--limit", "30")
    assert first.exit_code == 0, first.stderr
    assert first.stderr.count("installed") >= 1
    assert bundle().place(far).is_dir()
    again = holdfast("cluster", "up", "a", "--limit", "30")
    assert again.stderr.count("there already") == 3
    kept = Place(far / "nodes" / "a-001", "train.1")
    kept.make()
    down = holdfast("cluster", "down", "a", "--yes")
    assert down.exit_code == 0, down.stderr
    assert not (far / "bundles").exists()
    assert kept.logs.is_dir(), "what ranks wrote stays"
    assert holdfast("cluster", "down", "a", "--yes").stderr.count("nothing") == 3


@pytest.mark.usefixtures("far")
def test_nothing_is_taken_away_without_a_yes(holdfast: Holdfast) -> None:
    assert "give --yes" in holdfast("cluster", "down", "a").stderr


@pytest.mark.usefixtures("far", "story")
def test_a_cluster_where_a_job_runs_is_not_given_back(holdfast: Holdfast) -> None:
    result = holdfast("cluster", "down", "a", "--yes")
    assert result.exit_code == 2
    assert "train runs on a (attempt 1)" in result.stderr


def test_a_doctor_finds_nothing_wrong_and_changes_nothing(holdfast: Holdfast, far: Path) -> None:
    result = holdfast("cluster", "doctor", "a", "--all", "-o", "json")
    assert result.exit_code == 0, result.output
    assert {one["verdict"] for one in rows(result) if one["check"] != "reach"} == {"ok"}
    assert {one["check"] for one in rows(result)} >= {"python", "disk", "clock", "folder", "gpus"}
    assert not far.exists()
    assert "3 nodes: 3 can be used" in result.stderr


def test_a_doctor_names_what_is_wrong_and_what_to_do(
    holdfast: Holdfast, home: Path, far: Path, sshd: Sshd
) -> None:
    far.mkdir()
    far.chmod(0o777)
    body = yaml.safe_load((home / "holdfast.yaml").read_text())
    body["health"]["expect_gpus"] = 8
    (home / "holdfast.yaml").write_text(yaml.safe_dump(body))
    result = holdfast("cluster", "doctor", "a", "-o", "json")
    assert result.exit_code == 1
    found = {(one["node"], one["check"]): one for one in rows(result)}
    assert found["a-002", "folder"]["verdict"] == "bad"
    assert "0 devices, 8 expected" in found["a-003", "gpus"]["says"]
    assert all(one["remedy"] for one in found.values() if one["verdict"] == "bad")
    sshd.stop()
    silent = holdfast("cluster", "doctor", "a", "-o", "json")
    assert {one["check"] for one in rows(silent)} == {"reach"}
    assert "3 nodes: 0 can be used, 3 cannot" in silent.stderr


def test_a_host_with_another_key_is_told_by_its_fingerprint(
    holdfast: Holdfast, far: Path, sshd: Sshd
) -> None:
    sshd.stop()
    sshd.change_host_key()
    sshd.start()
    result = holdfast("cluster", "doctor", "a", "-o", "json")
    assert result.exit_code == 1
    assert "before you pin the new key" in rows(result)[0]["remedy"]
    up = holdfast("cluster", "up", "a", "--limit", "1")
    assert up.exit_code == 1
    assert "3 of 3 nodes are not ready" in up.stderr
    assert not far.exists()


@pytest.fixture
def logs(far: Path) -> None:
    for rank, node in enumerate(("a-001", "a-002")):
        place = Place(far / "nodes" / node, "train.1")
        place.make()
        place.log(1, rank).write_text("old\n")
        lines = [f"step {step}" for step in range(10)]
        place.log(2, rank).write_text("\n".join([*lines, f"rank {rank} ends"]))


@pytest.mark.usefixtures("logs")
def test_logs_come_from_the_nodes_that_wrote_them(
    holdfast: Holdfast, story: Story, sshd: Sshd
) -> None:
    result = holdfast("job", "logs", "train", "--tail", "2")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "[rank 0] step 9",
        "[rank 0] rank 0 ends",
        "[rank 1] step 9",
        "[rank 1] rank 1 ends",
    ]
    one = holdfast("job", "logs", "train", "--rank", "1", "--generation", "1")
    assert one.stdout.splitlines() == ["old"]
    end_job(story, JobState.SUCCEEDED)
    followed = holdfast("job", "logs", "train", "-f", "--rank", "0", "--tail", "1")
    assert followed.stdout.splitlines() == ["rank 0 ends"]
    sshd.stop()
    silent = holdfast("job", "logs", "train")
    assert silent.exit_code == 2
    assert silent.stderr.count("its logs are not shown") == 3


def test_a_remover_follows_no_link(far: Path, tmp_path: Path, holdfast: Holdfast) -> None:
    far.mkdir(mode=0o700)
    precious = tmp_path / "precious"
    (precious / "below").mkdir(parents=True)
    (far / "bundles").symlink_to(precious)
    result = holdfast("cluster", "down", "a", "--yes")
    assert result.exit_code == 1
    assert "is a link" in result.stderr
    assert (precious / "below").is_dir()
