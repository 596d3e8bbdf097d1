"""Which commit registers may be new, and which must be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import AttemptState
from orchestrator.core.nodes import JobName
from orchestrator.daemon.build import registers
from orchestrator.errors import TransientError
from tests.core.world import World
from tests.daemon.test_eyes import TWO, running

JOB = JobName("train")


def with_register(world: World, folder: Path, state: AttemptState, *, granted: bool) -> Fleet:
    fleet = world.fleet
    spec = replace(TWO, register=str(folder))
    attempts = tuple(
        replace(one, state=state, grant=one.grant if granted else None) for one in fleet.attempts
    )
    jobs = {JOB: replace(fleet.jobs[JOB], spec=spec)}
    return replace(fleet, jobs=jobs, attempts=attempts)


@pytest.mark.parametrize(
    ("state", "granted"),
    [(AttemptState.OPEN, False), (AttemptState.CLOSING, True), (AttemptState.CLOSED, True)],
)
def test_the_register_of_a_run_that_was_open_is_silent_when_it_is_gone(
    state: AttemptState, granted: bool, tmp_path: Path
) -> None:
    fleet = with_register(running(), tmp_path / "gone", state, granted=granted)
    with pytest.raises(TransientError, match="does not answer"):
        registers()(JOB, fleet).read()
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("state", [AttemptState.OPENING, AttemptState.CLOSING])
def test_a_run_that_never_opened_may_have_a_new_one(state: AttemptState, tmp_path: Path) -> None:
    find = registers()
    fleet = with_register(running(), tmp_path / "new", state, granted=False)
    register = find(JOB, fleet)
    assert register.read().next_seq == 1
    assert find(JOB, fleet) is register  # what was read of it is kept
    opened = with_register(running(), tmp_path / "new", AttemptState.OPEN, granted=True)
    with pytest.raises(TransientError):
        find(JOB, opened).read()
