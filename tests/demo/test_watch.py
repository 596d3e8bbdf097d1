from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.demo.watch import Beat, Watch


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path, "train", world=2)


def line(rank: int, step: int | None, at: float, loss: float | None = None) -> str:
    return json.dumps({"rank": rank, "step": step, "at": at, "loss": loss}) + "\n"


def progress(watch: Watch, node: str = "ash-1", run: str = "train.1") -> Path:
    path = watch.state / "clusters" / node.split("-")[0] / node / "attempts" / run
    path.mkdir(parents=True, exist_ok=True)
    return path / "progress.jsonl"


def told(world: int, *beats: tuple[int, int, float]) -> Watch:
    """Return a watch that has read these (rank, step, moment)."""
    watch = Watch(Path("/nowhere"), "train", world)
    for rank, step, at in beats:
        watch.beats.append(Beat("n", "train.1", rank, step, at, float(step)))
        key = (rank, step)
        watch._first[key] = min(at, watch._first.get(key, at))
    return watch


def test_files_of_all_nodes_and_attempts_are_read_a_little_at_a_time(watch: Watch) -> None:
    first, second = progress(watch), progress(watch, "birch-2", "train.2")
    first.write_text(line(0, 1, 10.0) + line(0, 2, 11.0))
    watch.look()
    watch.look()
    assert [(beat.node, beat.run, beat.step) for beat in watch.beats] == [
        ("ash-1", "train.1", 1),
        ("ash-1", "train.1", 2),
    ]
    second.write_text(line(1, 1, 12.0))
    progress(watch, "ash-1", "other.1").write_text(line(0, 99, 1.0))
    watch.look()
    assert [beat.step for beat in watch.beats] == [1, 2, 1]


def test_a_line_that_is_being_written_is_read_when_it_is_whole(watch: Watch) -> None:
    path, text = progress(watch), line(0, 7, 10.0)
    path.write_text(line(0, 6, 9.0) + text[:12])
    watch.look()
    assert [beat.step for beat in watch.beats] == [6]
    path.write_text(line(0, 6, 9.0) + text)
    watch.look()
    assert [beat.step for beat in watch.beats] == [6, 7]


@pytest.mark.parametrize("torn", ['{"rank": 0, "st', "", "null", "[]", "4", '{"step": 3}', "{}"])
def test_a_line_that_lost_its_end_is_skipped_and_the_next_is_read(watch: Watch, torn: str) -> None:
    progress(watch).write_text(torn + "\n" + line(0, 8, 10.0))
    watch.look()
    assert [beat.step for beat in watch.beats] == [8]


def test_a_heartbeat_before_the_first_step_tells_no_step(watch: Watch) -> None:
    progress(watch).write_text(line(0, None, 10.0))
    watch.look()
    assert watch.beats == []
    assert watch.done == 0


def test_a_step_is_done_when_the_slowest_rank_completed_it() -> None:
    watch = told(2, (0, 1, 1.0), (1, 1, 1.5), (0, 2, 2.0))
    assert watch.done == 1
    assert [watch.done_before(at) for at in (0.5, 1.0, 1.5, 9.0)] == [0, 0, 1, 1]


def test_a_rank_that_never_spoke_holds_everybody_at_the_start() -> None:
    assert told(2, (0, 5, 1.0)).done == 0


def test_going_back_to_a_checkpoint_does_not_undo_what_was_done() -> None:
    watch = told(1, (0, 1, 1.0), (0, 2, 2.0), (0, 3, 3.0), (0, 2, 9.0))
    assert watch.done == 3
    assert watch.done_before(2.5) == 2


def test_the_gang_resumed_when_the_last_rank_did_something_new() -> None:
    beats = [(0, 3, 3.0), (1, 3, 3.1), (0, 2, 9.0), (1, 2, 9.0), (0, 3, 10.0), (1, 3, 10.0)]
    assert told(2, *beats).resumed_at(5.0) is None, "only repeated steps so far"
    assert told(2, *beats, (0, 4, 11.0)).resumed_at(5.0) is None, "one rank alone"
    assert told(2, *beats, (0, 4, 11.0), (1, 4, 11.5)).resumed_at(5.0) == 11.5


def test_a_rank_that_was_ahead_must_do_its_step_again() -> None:
    watch = told(2, (0, 3, 3.0), (1, 3, 3.0), (0, 4, 4.0), (0, 4, 11.0), (1, 4, 12.0))
    assert watch.resumed_at(5.0) == 12.0


def test_steps_that_all_ranks_did_again_count_once_each() -> None:
    before = [(rank, step, float(step)) for rank in (0, 1) for step in (1, 2, 3)]
    after = [(rank, step, 10.0 + step) for rank in (0, 1) for step in (2, 3, 4)]
    assert told(2, *before, *after).repeated(5.0, 20.0) == 2
    assert told(2, *before, *after).repeated(5.0, 12.5) == 1
    assert told(2, *before).repeated(5.0, 20.0) == 0


def test_a_step_that_one_rank_ends_a_little_later_is_not_repeated() -> None:
    assert told(2, (0, 3, 4.99), (1, 3, 5.01)).repeated(5.0, 9.0) == 0


def test_the_last_loss_of_a_step_counts_and_only_rank_0_tells_it(watch: Watch) -> None:
    lines = [line(0, 1, 5.0, 0.5), line(0, 1, 3.0, 0.9), line(1, 1, 9.0, 0.1), line(0, 2, 6.0)]
    progress(watch).write_text("".join(lines))
    watch.look()
    assert watch.losses() == {1: 0.5}


def test_the_median_step_counts_only_steps_that_follow_each_other() -> None:
    beats = [(0, 1, 1.0), (0, 2, 2.0), (0, 3, 3.0), (0, 3, 60.0), (0, 7, 90.0), (1, 4, 99.0)]
    assert told(2, *beats).median_step() == 1.0
    assert told(2).median_step() == 0.0
    assert told(2, *beats).span() == (1.0, 99.0)
