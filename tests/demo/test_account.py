from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.chaos import Fault, Injected
from orchestrator.config.jobs import load_job
from orchestrator.config.settings import load_settings
from orchestrator.demo.account import DECIDED, NOTICED, account, as_json, ettr, save_losses
from orchestrator.demo.director import Broken, draw_script
from orchestrator.demo.show import Wishes, play, table_rows
from orchestrator.demo.stage import CLUSTERS, NODES, Stage
from orchestrator.errors import UserError
from orchestrator.ledger.api import Event
from tests.demo.test_watch import told


def event(kind: str, at: float, text: str = "") -> Event:
    return Event(datetime.fromtimestamp(at, UTC), kind, (), text)


def broken(kind: Fault, at: float, step: int = 3) -> Broken:
    return Broken(Injected(kind, "n1", 7, at), step)


STEPS = [(rank, step, float(step)) for rank in (0, 1) for step in (1, 2, 3)]
AGAIN = [(rank, step, 10.0 + step) for rank in (0, 1) for step in (3, 4, 5)]


def test_a_fault_costs_from_its_injection_to_the_first_new_step_of_all_ranks() -> None:
    events = [
        event("rank-exited", 4.0, "of an earlier fault"),
        event("rank-exited", 6.25, "n1: rank 0 was killed"),
        event("rank-exited", 6.5, "n2: rank 1 too"),
        event("generation-formed", 7.0, "generation 2"),
        event("generation-formed", 8.0, "generation 3"),
    ]
    (row,) = account([broken(Fault.KILL_RANK, 5.0)], told(2, *STEPS, *AGAIN), events)
    assert (row.kind, row.target, row.pid, row.at_step) == ("kill-rank", "n1", 7, 3)
    assert (row.noticed_s, row.resumed_s, row.steps_repeated) == (1.25, 9.0, 1)
    assert row.decision == "generation 2"


def test_what_was_never_noticed_nor_recovered_is_not_invented() -> None:
    (row,) = account([broken(Fault.GPU_FAULT, 5.0)], told(2, *STEPS), [])
    assert (row.noticed_s, row.resumed_s, row.steps_repeated, row.decision) == (None, None, 0, "")


def test_each_fault_counts_only_what_was_told_before_the_next() -> None:
    faults = [broken(Fault.KILL_RANK, 5.0), broken(Fault.KILL_RANK, 20.0)]
    rows = account(faults, told(2, *STEPS), [event("rank-exited", 21.0)])
    assert [row.noticed_s for row in rows] == [None, 1.0]


def test_the_verdict_on_a_checkpoint_is_what_was_decided_about_it() -> None:
    events = [
        event("generation-formed", 6.0, "generation 2"),
        event("verification-failed", 7.0, "commit 9 did not verify"),
    ]
    (row,) = account([broken(Fault.CORRUPT_CHECKPOINT, 5.0)], told(2, *STEPS), events)
    assert row.decision == "commit 9 did not verify"


def test_every_fault_has_its_events() -> None:
    assert NOTICED.keys() == DECIDED.keys() == set(Fault)


def test_training_all_the_time_is_a_ratio_of_one() -> None:
    steady = told(1, *((0, step, float(step)) for step in range(1, 11)))
    assert ettr(steady, 1.0) == 1.0
    stopped = told(1, *((0, step, float(step)) for step in range(1, 6)), (0, 6, 11.0))
    assert ettr(stopped, 1.0) == pytest.approx(6 / 11)


def test_the_result_is_plain_json(tmp_path: Path) -> None:
    rows = account([broken(Fault.KILL_RANK, 5.0)], told(2, *STEPS), [])
    result = as_json(rows, {"steps": 3, "identical": True})
    assert json.loads(json.dumps(result))["faults"][0]["kind"] == "kill-rank"
    assert list(result)[:2] == ["steps", "faults"]
    assert table_rows(result["faults"]) == [("kill-rank", "-", "-", "0", "")]
    save_losses(tmp_path / "loss.json", told(1, (0, 2, 2.0), (0, 1, 1.0)))
    assert json.loads((tmp_path / "loss.json").read_text()) == {"1": 1.0, "2": 2.0}


# --- the script ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(200))
def test_every_script_has_each_fault_once_and_never_starves_a_cluster(seed: int) -> None:
    script = draw_script(random.Random(seed))
    assert sorted(script) == sorted(Fault)
    lost = script.index(Fault.LOSE_CLUSTER)
    costly = [script.index(Fault.KILL_NODE), script.index(Fault.GPU_FAULT)]
    assert min(costly) < lost < max(costly)


def test_a_seed_is_a_script_and_another_seed_another() -> None:
    scripts = {tuple(draw_script(random.Random(seed))) for seed in range(50)}
    assert len(scripts) > 40
    assert draw_script(random.Random(1)) == draw_script(random.Random(1))


# --- the stage ----------------------------------------------------------------------------------


def test_the_stage_is_two_files_that_a_user_could_have_written(tmp_path: Path) -> None:

    stage = Stage(tmp_path / "disturbed", steps=40, seed=0, data_seed=5)
    stage.set()
    settings = load_settings(stage.config)
    assert [cluster.name for cluster in settings.clusters] == list(CLUSTERS)
    assert {len(cluster.node_names) for cluster in settings.clusters} == {NODES}
    assert settings.state == stage.state
    job = load_job(stage.job)
    assert "--data-seed" in job.command
    assert stage.state not in stage.checkpoints.parents


def test_a_folder_of_somebody_elses_is_never_replaced(tmp_path: Path) -> None:
    theirs = tmp_path / "thesis.txt"
    theirs.write_text("years of work")
    for out in (tmp_path, theirs):
        with pytest.raises(UserError, match="--out"):
            play(Wishes(out, 1, 0, 0), print, lambda name, step: None)
    assert theirs.read_text() == "years of work"
