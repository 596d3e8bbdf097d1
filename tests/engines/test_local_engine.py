"""What a node says is untrusted: whatever it is, it becomes an answer or an error of the house."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.engines.api import AgentAddress, Found
from orchestrator.engines.local import LocalEngine
from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.runtime import spec as specs
from orchestrator.runtime.spec import AgentSpec
from providers.api import Completed

SPEC = AgentSpec(
    node="n1", job="job", attempt=1, token=5, key="ab" * 16, command=("true",), workdir="/"
)
AGENT = {"host": "127.0.0.1", "port": 4000, "agent": "a1", "pid": 1}


class Node:
    """A node whose launcher says what it is told to say."""

    def __init__(self, out: Any = None, code: int = 0, err: Any = b"") -> None:
        self.out = out if isinstance(out, bytes) else json.dumps(out).encode()
        self.err = err if isinstance(err, bytes) else json.dumps(err).encode()
        self.code, self.asked, self.stdin = code, list[str](), b""

    def __call__(self, argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
        self.asked, self.stdin = list(argv), stdin
        return Completed(self.code, self.out, self.err)

    @property
    def engine(self) -> LocalEngine:
        return LocalEngine(lambda node: self, lambda node: Path("/homes") / node)


def test_an_agent_is_started_with_its_spec_on_stdin_and_no_secret_in_argv() -> None:
    node = Node(AGENT)
    assert node.engine.start("n1", SPEC) == AgentAddress("127.0.0.1", 4000, "a1")
    assert specs.decode(json.loads(node.stdin)) == SPEC
    assert SPEC.key not in " ".join(node.asked)
    assert node.asked[-3:] == ["start", "--home", "/homes/n1"]


def test_what_is_found_is_said_as_it_is() -> None:
    gone = {"by": "guard", "why": "the agent ended"}
    node = Node({"agent": None, "gone": gone, "boot_id": "b1"})
    assert node.engine.find("n1", "job.1") == Found(None, gone, "b1")
    node = Node({"agent": AGENT, "gone": None, "boot_id": "b1"})
    assert node.engine.find("n1", "job.1").agent == AgentAddress("127.0.0.1", 4000, "a1")


def test_a_sweep_carries_the_token_and_returns_its_proof() -> None:
    node = Node({"by": "sweep", "why": "asked", "at": 1.0})
    assert node.engine.sweep("n1", "job.1", 7)["why"] == "asked"
    assert node.asked[-4:] == ["--run", "job.1", "--token", "7"]


@pytest.mark.parametrize("proof", [{}, {"by": ""}, {"by": None}])
def test_an_answer_without_a_proof_proves_nothing(proof: dict[str, Any]) -> None:
    with pytest.raises(TransientError):
        Node(proof).engine.sweep("n1", "job.1", 7)


DEEP = b"[" * 100_000


@pytest.mark.parametrize("out", [b"", b"no JSON", b"\xff\xfe", b"[]", b"null", b'[["a", 1]]', DEEP])
def test_output_that_is_no_json_object_is_an_error_of_the_house(out: bytes) -> None:
    for verb in ("start", "find", "sweep"):
        with pytest.raises(TransientError):
            ask(Node(out), verb)


@pytest.mark.parametrize(
    "changed",
    [{"port": "x"}, {"port": float("inf")}, {"port": -1}, {"port": 1 << 70}, {"host": 4}],
)
def test_an_address_of_wrong_types_is_none(changed: dict[str, Any]) -> None:
    with pytest.raises(TransientError, match="address"):
        Node({**AGENT, **changed}).engine.start("n1", SPEC)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=6,
)


@given(st.sampled_from(["agent", "gone", "boot_id", "by"]), json_values)
def test_no_answer_crashes_us(name: str, value: Any) -> None:
    node = Node({"agent": None, "gone": None, "boot_id": "b", name: value})
    for verb in ("find", "sweep", "start"):
        try:
            ask(node, verb)
        except HoldfastError:
            continue


def test_a_refusal_gives_its_reason_and_says_whether_trying_again_helps() -> None:
    refused = Node(code=1, err=b'a warning\n{"error": "token 3 is below 5"}\n')
    with pytest.raises(PermanentError, match="n1: launch start: token 3 is below 5"):
        refused.engine.start("n1", SPEC)
    with pytest.raises(TransientError, match="did not listen"):
        Node(code=75, err={"error": "it did not listen"}).engine.start("n1", SPEC)


@pytest.mark.parametrize(
    ("err", "said"),
    [(b"", "no reason given"), (b"Traceback: oh", "oh"), (b'["error"]', "error"), (DEEP, r"\[")],
)
def test_a_refusal_without_a_reason_is_quoted(err: bytes, said: str) -> None:
    with pytest.raises(PermanentError, match=said):
        Node(code=1, err=err).engine.find("n1", "job.1")


def ask(node: Node, verb: str) -> object:
    if verb == "start":
        return node.engine.start("n1", SPEC)
    if verb == "find":
        return node.engine.find("n1", "job.1")
    return node.engine.sweep("n1", "job.1", 7)
