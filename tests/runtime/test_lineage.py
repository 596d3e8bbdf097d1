"""Which records of a register count, and where a new generation resumes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.runtime import lineage as records
from orchestrator.runtime.lineage import (
    BadRecordError,
    Because,
    Cause,
    Commit,
    Fence,
    Generation,
    Lineage,
    Member,
    Record,
    choose_resume,
    decode,
    encode,
    summary,
)

MEMBERS = (Member("a", "h", 1), Member("b", "h", 2))
START = Because(Cause.START)
EXIT = Because(Cause.RANK_EXIT, 7, "exit 1: ValueError", "b", 1)


def fence(seq: int, attempt: int, token: int = 1) -> Fence:
    return Fence(seq, f"f{seq}", token, attempt, 1.0)


def generation(
    seq: int, under: int, after: int | None = None, because: Because = START, **more: object
) -> Generation:
    made = Generation(
        seq=seq,
        nonce=f"g{seq}",
        under=under,
        after=after,
        number=1,
        grant=1,
        members=MEMBERS,
        store="h:3",
        resume=None,
        why="",
        because=because,
        at=1.0,
        by="a",
    )
    return replace(made, **more)  # type: ignore[arg-type]


def commit(seq: int, under: int, parent: int | None = None) -> Commit:
    return Commit(seq, f"c{seq}", under, seq * 10, parent, f"m{seq}", "d", 1.0, "a")


def read(*found: Record) -> Lineage:
    return Lineage.read(found)


def reasons(lineage: Lineage) -> list[str]:
    return [void.reason for void in lineage.void]


def test_an_empty_register() -> None:
    lineage = read()
    assert (lineage.attempt, lineage.ruler, lineage.latest, lineage.head) == (0, None, None, None)
    assert lineage.fruitless() == ()
    assert lineage.next_seq == 1


def test_a_plain_run_counts() -> None:
    lineage = read(fence(1, 1), generation(2, 1), commit(3, 2), commit(4, 2, 3))
    assert not lineage.void
    assert lineage.ruler == 2
    assert lineage.head == commit(4, 2, 3)
    assert lineage.commit(3) == commit(3, 2)
    assert lineage.commit(None) is None
    assert lineage.fruitless() == ()  # it committed
    assert summary(lineage) == {
        "attempt": 1,
        "generation": 1,
        "commits": 2,
        "step": 40,
        "void": 0,
    }


def test_a_gap_is_an_error_for_it_could_be_a_fence() -> None:
    with pytest.raises(BadRecordError, match="expected seq 2, found 3"):
        read(fence(1, 1), generation(3, 1))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([fence(1, 2)], "attempt 2, but 1 is next"),
        ([fence(1, 1, token=5), fence(2, 2, token=4)], "token 4 is below 5"),
        ([fence(1, 1), fence(2, 3)], "attempt 3, but 2 is next"),
        ([generation(1, 0)], "under fence 0, not the last that counts"),
        ([fence(1, 1), fence(2, 2), generation(3, 1)], "under fence 1, not the last that counts"),
        (
            [fence(1, 1), generation(2, 1), generation(3, 1)],
            "after None, not the last generation that counts",
        ),
        ([commit(1, 0)], "under record 0, but None rules"),
        ([fence(1, 1), generation(2, 1), fence(3, 2), commit(4, 2)], "under record 2, but 3 rules"),
        (
            [fence(1, 1), generation(2, 1), generation(3, 1, 2), commit(4, 2)],
            "under record 2, but 3 rules",
        ),
    ],
)
def test_what_does_not_count_says_why(found: list[Record], reason: str) -> None:
    assert reasons(read(*found)) == [reason]


def test_right_after_a_fence_there_is_no_generation_but_its_commits_stay() -> None:
    lineage = read(fence(1, 1), generation(2, 1), commit(3, 2), fence(4, 2))
    assert lineage.latest is None
    assert lineage.generation == generation(2, 1)
    assert lineage.head == commit(3, 2)
    assert lineage.ruler == 4
    assert lineage.fruitless() == ()  # of this attempt


def test_generations_are_fruitless_until_a_commit_reaches_a_step_that_is_new() -> None:
    first, second = generation(2, 1), generation(4, 1, 2, EXIT)
    story: list[Record] = [fence(1, 1), first]
    assert read(*story).fruitless() == (first,)
    story += [commit(3, 2), second]
    assert read(*story).fruitless() == (second,)
    again = replace(commit(5, 4, 3), step=30)  # as far as before, and no further
    assert read(*story, again).fruitless() == (second,)
    assert read(*story, replace(again, step=31)).fruitless() == ()


def test_the_head_is_where_the_last_generation_resumed_until_it_commits() -> None:
    story: list[Record] = [fence(1, 1), generation(2, 1), commit(3, 2), commit(4, 2, 3)]
    down = generation(5, 1, 2, EXIT, resume=3)
    assert read(*story, down).head == commit(3, 2)
    assert read(*story, down, commit(6, 5, 3)).head == commit(6, 5, 3)


def test_a_generation_resumes_from_the_head() -> None:
    assert choose_resume(read(), START) == (None, "nothing was committed yet")
    seq, why = choose_resume(read(fence(1, 1), generation(2, 1), commit(3, 2)), EXIT)
    assert seq == 3
    assert "step 30" in why


def test_nothing_resumes_from_a_commit_that_came_too_late_to_count() -> None:
    formed = generation(4, 1, 2, EXIT, resume=3)
    late = commit(5, 2, 3)  # its generation rules no more
    lineage = read(fence(1, 1), generation(2, 1), commit(3, 2), formed, late)
    assert reasons(lineage) == ["under record 2, but 4 rules"]
    assert lineage.head == commit(3, 2)
    assert choose_resume(lineage, Because(Cause.NODE_LOST))[0] == 3


def test_the_same_failure_twice_steps_down_to_the_parent() -> None:
    story: list[Record] = [fence(1, 1), generation(2, 1), commit(3, 2), commit(4, 2, 3)]
    lineage = read(*story, generation(5, 1, 2, EXIT, resume=4))
    seq, why = choose_resume(lineage, EXIT)
    assert seq == 3
    assert "the same failure twice at step 7" in why
    other = replace(EXIT, step=8)
    assert choose_resume(lineage, other)[0] == 4


def test_losing_a_node_twice_is_no_poison() -> None:
    lost = Because(Cause.NODE_LOST, 7, "b is silent", "b")
    assert not lost.repeats(lost)
    assert not EXIT.repeats(None)


def test_a_node_whose_ranks_never_start_does_not_lead_down_to_nothing() -> None:
    """Found by the simulator: a broken node whose eviction had to wait cost every checkpoint."""
    dead = Because(Cause.RANK_EXIT, None, "exit 1: CUDA error", "b")
    assert not dead.repeats(dead)
    assert dead.repeats(replace(dead, node="a"))
    assert replace(dead, step=7).repeats(replace(dead, step=7))


def test_a_commit_that_does_not_verify_is_stepped_over() -> None:
    lineage = read(fence(1, 1), generation(2, 1), commit(3, 2), commit(4, 2, 3))
    failed = Because(Cause.VERIFICATION, commit=4)
    assert choose_resume(lineage, failed)[0] == 3
    assert choose_resume(lineage, replace(failed, commit=3))[0] == 4  # an older news


def test_with_no_parent_left_it_starts_from_nothing() -> None:
    lineage = read(fence(1, 1), generation(2, 1), commit(3, 2))
    seq, why = choose_resume(lineage, Because(Cause.VERIFICATION, commit=3))
    assert seq is None
    assert "starting from nothing" in why


def test_a_mark_tells_formations_apart() -> None:
    one, other = generation(2, 1), generation(2, 1, store="h:4")
    assert one.mark != other.mark


# ---- the wire form -------------------------------------------------------------------------------

numbers = st.integers(0, 2**40)
seqs = st.one_of(st.none(), numbers)
texts = st.text(max_size=30)
members = st.lists(st.builds(Member, texts, texts, numbers), max_size=4).map(tuple)
because = st.builds(Because, st.sampled_from(Cause), seqs, texts, texts, seqs, seqs)
moments = st.floats(0, 2e9)
found_records = st.one_of(
    st.builds(Fence, numbers, texts, numbers, numbers, moments, texts),
    st.builds(
        Generation,
        seq=numbers,
        nonce=texts,
        under=numbers,
        after=seqs,
        number=numbers,
        grant=numbers,
        members=members,
        store=texts,
        resume=seqs,
        why=texts,
        because=because,
        at=moments,
        by=texts,
        held=st.booleans(),
    ),
    st.builds(Commit, numbers, texts, numbers, numbers, seqs, texts, texts, moments, texts),
)


@given(found_records)
def test_every_record_survives_the_wire(record: Record) -> None:
    assert decode(encode(record), seq=record.seq) == record


def test_an_older_generation_without_held_is_read() -> None:
    body = json.loads(encode(generation(2, 1)))
    del body["held"]
    assert decode(json.dumps(body).encode(), seq=2) == generation(2, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        encode(fence(2, 1)),
        encode(fence(1, 1)).replace(b'"version": 1', b'"version": 2'),
        encode(fence(1, 1)).replace(b"fence", b"hedge"),
        encode(fence(1, 1)).replace(b'"token"', b'"taken"'),
        encode(generation(1, 1)).replace(b'"start"', b'"whim"'),
    ],
)
def test_what_cannot_be_read_is_never_skipped(data: bytes) -> None:
    with pytest.raises(BadRecordError):
        decode(data, seq=1)


# ---- what holds for any sequence -----------------------------------------------------------------


@st.composite
def any_story(draw: st.DrawFn) -> list[Record]:
    story: list[Record] = []
    for seq in range(1, draw(st.integers(1, 25)) + 1):
        some = st.integers(1, seq)
        maybe = st.one_of(st.none(), some)
        kind = draw(st.sampled_from("fgggccc"))
        if kind == "f":
            story.append(fence(seq, draw(st.integers(1, 4)), draw(st.integers(1, 3))))
        elif kind == "g":
            story.append(generation(seq, draw(some), draw(maybe), resume=draw(maybe)))
        else:
            story.append(commit(seq, draw(some), draw(maybe)))
    return story


@settings(max_examples=300)
@given(any_story())
def test_at_any_moment_at_most_one_generation_can_commit(story: list[Record]) -> None:
    lineage = Lineage()
    for record in story:
        before = lineage
        lineage = lineage.then(record)
        counts = not lineage.void or lineage.void[-1].record != record
        if isinstance(record, Commit):
            assert counts == (record.under == before.ruler and before.ruler is not None)
        if counts and not isinstance(record, Commit):
            assert lineage.ruler == record.seq
    tokens = [r.token for r in story if isinstance(r, Fence) and r == lineage.fence]
    assert len(tokens) <= 1
    assert records.Lineage.read(story) == lineage
