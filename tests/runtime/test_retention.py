"""Retention: the last K commits that verified stay, and everything a live resume may need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtime.lineage import Commit
from orchestrator.runtime.manifests import save_of
from orchestrator.runtime.retention import UNCOMMITTED_AGE_S, Keeper
from orchestrator.runtime.vault import FencedError
from tests.runtime.stores import MemoryStore
from tests.runtime.vaults import Story


class Kept:
    """A story whose vault is pruned."""

    def __init__(self, keep: int = 2) -> None:
        self.store = MemoryStore()
        self.story = Story(self.store)
        self.story.fence()
        self.story.generation()
        self.keeper = Keeper(keep, clock=lambda: self.store.now)

    def prune(self) -> tuple[str, ...]:
        return self.keeper.prune(self.story.vault, self.story.writer())

    def present(self, commit: Commit) -> bool:
        return self.story.vault.verify(commit).ok

    def damage(self, commit: Commit) -> None:
        key = next(self.store.list(f"parts/{save_of(commit.manifest)}/"))
        self.store.objects[key] = b"damaged"


def test_the_last_k_that_verified_stay_and_records_always() -> None:
    kept = Kept(keep=2)
    commits = [kept.story.commit(step) for step in range(5)]
    records = [*kept.store.list("commits/")]
    kept.prune()
    assert [kept.present(commit) for commit in commits] == [False, False, False, True, True]
    assert [kept.story.vault.verify(c).pruned for c in commits[:3]] == [True, True, True]
    assert [*kept.store.list("commits/")] == records
    assert kept.prune() == ()


def test_a_damaged_commit_does_not_count_as_kept() -> None:
    kept = Kept(keep=2)
    commits = [kept.story.commit(step) for step in range(5)]
    kept.damage(commits[3])
    kept.prune()
    assert [kept.present(commit) for commit in commits] == [False, False, True, False, True]


def test_nothing_is_removed_while_fewer_than_k_verify() -> None:
    kept = Kept(keep=3)
    commits = [kept.story.commit(step) for step in range(5)]
    for commit in commits[1:4]:
        kept.damage(commit)
    assert kept.prune() == ()
    assert kept.present(commits[0])


def test_the_parents_of_the_head_stay_after_stepping_down() -> None:
    kept = Kept(keep=2)
    commits = [kept.story.commit(step) for step in range(5)]
    kept.story.generation(resume=commits[1].seq)
    kept.prune()
    assert [kept.present(commit) for commit in commits] == [True, True, False, True, True]


def test_uncommitted_parts_stay_for_an_hour() -> None:
    kept = Kept()
    kept.story.commit(step=1)
    unfinished = kept.story.put(step=2)
    kept.store.now += UNCOMMITTED_AGE_S - 1
    assert kept.prune() == ()
    kept.store.now += 2
    assert kept.prune() == (unfinished.save,)


def test_a_slow_save_is_as_young_as_its_newest_part() -> None:
    kept = Kept()
    unfinished = kept.story.put(step=2)
    kept.store.now += 2 * UNCOMMITTED_AGE_S
    kept.story.vault.put(unfinished.save, "late", 0, b"still writing")
    assert kept.prune() == ()


def test_what_a_fenced_attempt_left_uncommitted_goes_at_once() -> None:
    kept = Kept()
    unfinished = kept.story.put(step=2)
    kept.story.fence()
    assert kept.prune() == (unfinished.save,)


def test_commits_of_a_fenced_attempt_are_kept_like_any_other() -> None:
    kept = Kept()
    commit = kept.story.commit(step=1)
    kept.story.fence()
    assert kept.prune() == ()
    assert kept.present(commit)


def test_a_fenced_writer_removes_nothing() -> None:
    kept = Kept(keep=1)
    commits = [kept.story.commit(step) for step in range(3)]
    asleep = kept.story.writer()
    kept.story.fence()
    with pytest.raises(FencedError):
        kept.keeper.prune(kept.story.vault, asleep)
    assert all(kept.present(commit) for commit in commits)


def test_objects_of_others_in_the_vault_are_left_alone() -> None:
    kept = Kept()
    kept.store.put_part("parts/README/hello", b"not ours")
    kept.store.now += 10 * UNCOMMITTED_AGE_S
    assert kept.prune() == ()


def test_keeping_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Keeper(0)


MOVES = st.lists(st.sampled_from(["commit", "damage", "step-down", "fence", "prune"]), max_size=14)


@given(moves=MOVES, keep=st.integers(1, 3))
def test_whatever_happens_pruning_never_loses_the_state_to_resume_from(
    moves: list[str], keep: int
) -> None:
    kept = Kept(keep)
    for step, move in enumerate(moves):
        lineage = kept.story.register.read()
        head = lineage.head
        if move == "commit":
            kept.story.commit(step)
        elif move == "fence":
            kept.story.fence()
            kept.story.parent = head.seq if head else None
        elif move == "damage" and head and kept.present(head):
            kept.damage(head)
        elif move == "step-down" and head:
            kept.story.generation(resume=head.parent)
        elif move == "prune":
            before = kept.story.vault.fall_back(lineage, head)
            kept.prune()
            assert kept.story.vault.fall_back(lineage, head) == before
