"""People are told while something is wrong, and told once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.core.decisions import OpenIncident
from orchestrator.core.jobs import JobSpec
from orchestrator.core.nodes import JobName
from orchestrator.core.observations import RegisterSilent
from orchestrator.core.pages import URGENT, Page, Urgency, urgency
from orchestrator.runtime.lineage import Because, Cause, Generation, Lineage
from orchestrator.runtime.reports import RankReport, RankState, Stage
from tests.core.test_stories import started
from tests.core.world import SimAgent, World

JOB = JobName("train")


def agent(world: World, node: str = "a-1") -> SimAgent:
    return world.nodes[node].agents[JOB, 1]


def re_form(world: World, because: Because, why: str) -> None:
    """Append a generation as the gang would, for this cause."""
    lineage: Lineage = world.lineages["train"]
    last = lineage.latest
    assert last is not None

    def make(seq: int) -> Generation:
        changes = {"seq": seq, "after": last.seq, "number": last.number + 1}
        return replace(last, **changes, because=because, why=why)  # type: ignore[arg-type]

    world.gangs["train", 1].seq = world.append("train", make)


def opened(world: World, page: Page) -> int:
    return sum(isinstance(d, OpenIncident) and d.page is page for d in world.done)


def test_a_commit_that_fails_is_told_of_until_the_next_one_lands() -> None:
    world = started({"a": 3})
    agent(world).note("commit-failed", "No space left on device", world.epoch)
    world.run(4)
    assert ("commit-failed", "train") in world.pages()
    agent(world).note("commit", "commit 9", world.epoch)
    world.run(2)
    assert ("commit-failed", "train") not in world.pages()
    assert opened(world, Page.COMMIT_FAILED) == 1


def test_a_stall_is_told_of_until_its_ranks_step_again() -> None:
    world = started({"a": 3})
    agent(world).note("suspected", "rank 0 is still in step 7", world.epoch)
    world.run(2)
    assert ("hang-suspected", "train") not in world.pages()  # many stalls pass by themselves
    world.run(12)
    assert ("hang-suspected", "train") in world.pages()
    rank = RankReport(0, 0, 1, RankState.RUNNING, step_at=world.epoch + 1)
    world.ranks = (rank,)
    world.run(3)
    assert ("hang-suspected", "train") not in world.pages()


def test_a_stall_is_over_when_the_gang_formed_anew() -> None:
    world = started({"a": 3})
    agent(world).note("suspected", "rank 0 is still in step 7", world.epoch)
    agent(world).note("generation-formed", "generation 2", world.epoch)
    world.run(2)
    assert ("hang-suspected", "train") not in world.pages()


def test_poison_is_told_of_until_something_is_committed_again() -> None:
    world = started({"a": 3})
    because = Because(Cause.RANK_EXIT, step=4, fingerprint="exit 1", node="a-2")
    re_form(world, because, "the same failure twice at step 4: exit 1; stepped down")
    world.run(1)
    assert {("poison-checkpoint", "train"), ("restarts", "train")} <= world.pages()
    assert world.told("re-formed by itself: rank-exit on a-2")
    world.run(8)
    assert ("poison-checkpoint", "train") not in world.pages()
    world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(minutes=10))
    world.run(1)
    assert ("restarts", "train") not in world.pages()


def test_a_checkpoint_that_did_not_verify_is_told_of() -> None:
    world = started({"a": 3})
    re_form(world, Because(Cause.VERIFICATION, commit=3), "commit 3 did not verify; stepped down")
    world.run(1)
    assert ("bad-checkpoint", "train") in world.pages()


def test_a_register_out_of_reach_pages_after_a_while() -> None:
    world = started({"a": 3})
    world.silent_registers.add("train")
    for _ in range(10):
        world.see(RegisterSilent(JOB, world.fleet.now, "timed out"))
        world.run(1)
    assert ("register-unreachable", "train") in world.pages()
    world.silent_registers.clear()
    world.run(2)
    assert ("register-unreachable", "train") not in world.pages()


def test_a_job_that_waits_for_long_is_told_of() -> None:
    world = World({"a": 1})
    world.submit("train", JobSpec(nodes_min=2, nodes_max=2))
    world.run(3)
    assert world.pages() == set()
    world.run(5)
    assert world.pages() == {("no-spare", "train")}


def test_a_failed_job_is_told_of_for_a_day() -> None:
    world = started({"a": 3}, JobSpec(2, 2, register="/r", attempts_max=1))
    agent(world).stage = Stage.FAILED
    world.until(lambda w: w.job("train") == "failed")
    assert ("job-failed", "train") in world.pages()
    world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(days=1))
    world.run(1)
    assert ("job-failed", "train") not in world.pages()


def test_only_what_needs_a_person_wakes_one() -> None:
    assert {page for page in Page if urgency(page) is Urgency.PAGE} == URGENT
