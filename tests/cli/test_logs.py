from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.runtime.place import Place
from tests.cli.conftest import Holdfast, Story, end_job


@pytest.fixture
def logs(home: Path, story: Story) -> None:
    for rank, node in enumerate(("a-001", "a-002")):
        place = Place(home / "holdfast-state" / "clusters" / "a" / node, "train.1")
        place.make()
        place.log(1, rank).write_text("old\n")
        lines = [f"step {step}" for step in range(10)]
        place.log(2, rank).write_text("\n".join([*lines, f"rank {rank} ends"]) + "\n")


@pytest.mark.usefixtures("logs")
def test_the_newest_generation_is_shown_rank_by_rank(holdfast: Holdfast) -> None:
    lines = holdfast("job", "logs", "train").stdout.splitlines()
    assert lines[0] == "[rank 0] step 0"
    assert lines[-1] == "[rank 1] rank 1 ends"
    assert "old" not in "".join(lines)


@pytest.mark.usefixtures("logs")
def test_one_rank_and_a_few_lines_may_be_asked_for(holdfast: Holdfast) -> None:
    result = holdfast("job", "logs", "train", "--rank", "1", "--tail", "2")
    assert result.stdout.splitlines() == ["step 9", "rank 1 ends"]
    older = holdfast("job", "logs", "train", "--generation", "1", "--rank", "0")
    assert older.stdout.splitlines() == ["old"]


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("wish", [("--rank", "9"), ("--generation", "7"), ("--attempt", "3")])
def test_what_was_never_written_exits_with_2(holdfast: Holdfast, wish: tuple[str, str]) -> None:
    assert holdfast("job", "logs", "train", *wish).exit_code == 2


@pytest.mark.usefixtures("logs")
def test_following_ends_with_the_job(holdfast: Holdfast, story: Story) -> None:
    end_job(story, JobState.SUCCEEDED)
    result = holdfast("job", "logs", "train", "-f", "--tail", "1")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["[rank 0] rank 0 ends", "[rank 1] rank 1 ends"]
    assert "train succeeded" in result.stderr
