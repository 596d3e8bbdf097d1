"""A job that goes on from a replica: its register is another one from then on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

from orchestrator.core.decisions import MoveAttempt, SetVault
from orchestrator.core.jobs import AttemptState, JobSpec, Outcome
from orchestrator.core.observations import OrderKind
from orchestrator.runtime.lineage import Fence, Lineage, Record
from tests.core.test_recovery import cut_off
from tests.core.test_stories import running
from tests.core.world import World

VAULT, COPY, OTHER = "/r/train", "/copy", "/other"
LAUNCH = {"replicas": [COPY, OTHER], "replicate": {"rpo": 60.0}}
SPEC = JobSpec(
    nodes_min=2,
    nodes_max=2,
    register="/r",
    checkpoints=VAULT,
    stop_grace=timedelta(seconds=1),
    launch=LAUNCH,
)


def started(clusters: dict[str, int]) -> World:
    world = World(clusters)
    world.submit("train", SPEC)
    world.until(running)
    return world.until(lambda w: w.lineages["train"].head is not None)


def records(lineage: Lineage) -> Iterable[Record]:
    """Return what counts, as a copy would have it."""
    found: list[Record] = [*lineage.generations, *lineage.commits]
    return sorted(found, key=lambda one: one.seq)


def lose(world: World) -> Lineage:
    """Put a copy, made at the first commit, in the place of the register."""
    old = world.lineages["train"]
    assert old.fence is not None
    copy = Lineage().then(old.fence)
    for one in records(old):
        if one.seq <= old.commits[0].seq:
            copy = copy.then(one)
    world.lineages["train"] = copy
    return copy


def promote(world: World, url: str = COPY, *, lost: bool = False) -> None:
    world.order(OrderKind.PROMOTE, "train", url=url, lost=lost)


def trains(world: World, attempt: int) -> bool:
    """Say whether this attempt has fenced, formed and committed."""
    lineage = world.lineages["train"]
    latest, head = lineage.latest, lineage.head
    if lineage.attempt != attempt or latest is None or head is None:
        return False
    return head.under == latest.seq


def test_the_next_attempt_begins_from_the_copy() -> None:
    world = started({"a": 3})
    world.run(20)
    copy = lose(world)
    promote(world)
    world.until(lambda w: trains(w, 2))
    spec = world.fleet.jobs[world.attempt("train").job].spec
    assert (spec.register, spec.checkpoints) == (COPY, COPY)
    assert spec.launch["replicas"] == [OTHER]
    ends = [one.outcome for one in world.done if isinstance(one, MoveAttempt) and one.outcome]
    assert ends == [Outcome.MOVED]
    lineage = world.lineages["train"]
    assert lineage.attempt == 2
    assert lineage.void == ()
    assert copy.head is not None
    begun = [one for one in lineage.generations if one.under == lineage.fence.seq]  # type: ignore[union-attr]
    assert begun[0].resume == copy.head.seq


def test_a_copy_may_be_many_attempts_behind() -> None:
    world = started({"a": 3})
    copy = world.lineages["train"]
    for attempt in (2, 3):  # somebody else's, in the register that is lost
        world.append("train", partial(Fence, nonce="x", token=1, attempt=attempt, at=0.0))
    world.until(lambda w: trains(w, 4))
    world.lineages["train"] = copy
    promote(world)
    world.until(lambda w: trains(w, 5))
    assert world.lineages["train"].attempt == 5
    assert world.lineages["train"].void == ()


def test_what_cannot_be_seen_to_have_ended_is_waited_for() -> None:
    world = started({"a": 2, "b": 2})
    cut_off(world, "a-1", "a-2")
    lose(world)
    promote(world)
    world.run(120)
    assert not any(
        one.state is AttemptState.OPEN for one in world.fleet.attempts if one.number == 2
    )
    cut_off(world, "a-1", "a-2", reachable=True)
    world.until(lambda w: trains(w, 2))


def test_unless_a_person_vouches_that_the_vault_is_lost() -> None:
    world = started({"a": 2, "b": 2})
    cut_off(world, "a-1", "a-2")
    lose(world)
    promote(world, lost=True)
    world.until(lambda w: w.members("train") == ("b-1", "b-2"))
    cut_off(world, "a-1", "a-2", reachable=True)  # the old gang is told to end, and does
    world.until(lambda w: all(o.state is AttemptState.CLOSED for o in w.fleet.attempts[:-1]))
    world.run(10)
    assert world.members("train") == ("b-1", "b-2")
    assert world.lineages["train"].attempt == 2


def test_an_order_that_cannot_be_carried_out_is_refused() -> None:
    world = started({"a": 3})
    promote(world, "/elsewhere")
    world.run(2)
    assert world.told("refused: /elsewhere is no replica of train: it has /copy, /other")
    world.order(OrderKind.PROMOTE, "nobody", url=COPY)
    world.run(2)
    assert world.told("refused: no job is called nobody")
    world.order(OrderKind.STOP, "train")
    promote(world)
    world.run(2)
    assert world.told("refused: train is being stopped")
    world.until(lambda w: w.job("train") == "stopped")
    promote(world)
    world.run(2)
    assert world.told("refused: train is over: stopped")
    assert world.attempt("train").number == 1


def test_an_order_that_is_answered_again_gives_up_no_other_attempt() -> None:
    """As after a crash between the decisions and the answer."""
    world = started({"a": 3})
    lose(world)
    promote(world)
    promote(world)
    world.until(lambda w: trains(w, 2))
    promote(world)
    world.run(10)
    assert world.attempt("train").number == 2
    moved = [one for one in world.done if isinstance(one, MoveAttempt) and one.outcome]
    assert len(moved) == 1
    assert sum(isinstance(one, SetVault) for one in world.done) == 1
