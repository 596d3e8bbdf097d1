"""What peers say survives the wire, and what is no word is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Because, Cause, Generation, Member
from orchestrator.runtime.words import (
    BadWordError,
    Phase,
    Status,
    Trouble,
    Word,
    decode,
    encode,
)

texts = st.text(max_size=20)
numbers = st.integers(0, 2**40)
seqs = st.one_of(st.none(), numbers)
marks = st.one_of(st.none(), texts)
moments = st.floats(0, 2e9)
members = st.builds(Member, texts, texts, st.integers(1, 65_535))
several = st.lists(members, max_size=3).map(tuple)
because = st.builds(Because, st.sampled_from(Cause), seqs, texts, texts, seqs, seqs)
generations = st.builds(
    Generation,
    seq=numbers,
    nonce=texts,
    under=numbers,
    after=seqs,
    number=numbers,
    grant=numbers,
    members=several,
    store=texts,
    resume=seqs,
    why=texts,
    because=because,
    at=moments,
    by=texts,
    held=st.booleans(),
)
statuses = st.builds(
    Status,
    member=members,
    born=moments,
    count=numbers,
    grant=numbers,
    ready=st.booleans(),
    latest=seqs,
    phase=st.sampled_from(Phase),
    mark=marks,
    trouble=st.one_of(st.none(), st.builds(Trouble, texts, because, moments)),
    done=marks,
    failed=marks,
    reached=st.booleans(),
    unsure=st.booleans(),
    stopping=st.booleans(),
    formed=st.one_of(st.none(), generations),
)
offered = st.builds(
    Grant,
    job=texts,
    attempt=numbers,
    number=numbers,
    token=numbers,
    nodes=several,
    standbys=several,
    nodes_min=numbers,
    nodes_max=numbers,
    generations_max=numbers,
    budget=st.dictionaries(texts, numbers, max_size=2),
    resume_max=seqs,
)
words = st.builds(Word, st.booleans(), numbers, statuses, st.one_of(st.none(), offered))


@given(words)
def test_every_word_survives_the_wire(word: Word) -> None:
    assert decode(json.loads(json.dumps(encode(word)))) == word


def said() -> dict[str, Any]:
    member = Member("a", "h", 1)
    return encode(Word(True, 1, Status(member, 1.0, 1, 0, True, None, Phase.CLEAR, None)))


def test_unknown_keys_of_a_newer_agent_are_ignored() -> None:
    body = said()
    body["status"]["mood"] = "good"
    assert decode(body).status.member == Member("a", "h", 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), None),
        (("status", "phase"), "sleeping"),
        (("status", "member"), {"node": "a", "host": "h", "port": 0}),
        (("status", "member"), {"node": "a"}),
        (("status", "count"), "many"),
        (("status", "trouble"), {"mark": "m"}),
        (("status", "formed"), {"kind": "fence", "version": 1, "seq": 1}),
        (
            ("status", "formed"),
            {
                "kind": "fence",
                "version": 1,
                "seq": 1,
                "nonce": "n",
                "token": 1,
                "attempt": 1,
                "at": 0.0,
            },
        ),
        (("grant",), {"version": 99}),
        (("number",), None),
    ],
)
def test_what_is_no_word_is_refused(path: tuple[str, ...], value: object) -> None:
    body = said()
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(BadWordError):
        decode(body)


@pytest.mark.parametrize("body", [None, [], "x", {}, {"grant": None}])
def test_anything_else_is_refused_too(body: object) -> None:
    with pytest.raises(BadWordError):
        decode(body)
