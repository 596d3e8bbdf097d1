"""Twenty random kill schedules, two hundred in `make soak`: the weights are always the same."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from orchestrator.runtime.place import Place
from tests.runtime.schedules import WEIGH_EVERY, Schedule
from tests.runtime.steadygangs import Said, steady_gang, undisturbed
from tests.runtime.trees import marked, wait_for

pytest.importorskip("torch")
pytestmark = [pytest.mark.system, pytest.mark.torch]

STEPS = 100_000  #: more than a gang gets to
WISHES = {"save_every": 25, "snapshot_budget": 1.0}
ENV = {"WEIGH_EVERY": str(WEIGH_EVERY)}


def run_schedules(root: Path, per_node: int, seeds: range) -> None:
    """Let all schedules happen to one gang; whatever any rank weighed must be as undisturbed."""
    (root / "gang").mkdir()
    with steady_gang(
        root / "gang",
        "ab",
        standbys="c",
        per_node=per_node,
        steps=STEPS,
        pause=0.03,
        wishes=WISHES,
        more_env=ENV,
    ) as steady:
        steady.wait_step(1)
        happened: dict[int, Schedule] = {}  # by the step at which they began
        for seed in seeds:
            schedule = Schedule(steady, seed)
            happened[steady.last_step] = schedule
            schedule.run()
            schedule.wait_progress()
        assert not steady.lineage().void
        for node in "abc":  # guard, agent, warm parent, store process, courier, ranks: nothing else
            place = Place(steady.gang.home(node), "j.1")
            wait_for(partial(few, place, 5 + per_node))
        said = [one for one in steady.said if "weighs" in one]
    compare(root / "alone", 2 * per_node, said, happened)


def few(place: Place, most: int) -> bool:
    return len(marked(place)) <= most


def compare(folder: Path, world: int, said: Said, happened: dict[int, Schedule]) -> None:
    last = max(one["step"] for one in said)
    undisturbed(folder, world=world, steps=last, more_env=ENV)
    lines = [json.loads(line) for line in (folder / "said.x.0").read_text().splitlines()]
    weights = {one["step"]: one["weighs"] for one in lines if "weighs" in one}
    for one in said:
        step = one["step"]
        if one["weighs"] != weights[step]:
            schedule = happened[max(began for began in happened if began <= step)]
            raise AssertionError(f"other weights at step {step}, rank {one['rank']}: {schedule}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("per_node", [1, 2])
def test_weights_are_those_of_the_undisturbed_run(tmp_path: Path, per_node: int) -> None:
    run_schedules(tmp_path, per_node, range(1_000 * per_node, 1_000 * per_node + 10))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("per_node", [1, 2])
def test_soak(tmp_path: Path, per_node: int, part: int) -> None:
    first = 10_000 * per_node + 10 * part
    run_schedules(tmp_path, per_node, range(first, first + 10))
