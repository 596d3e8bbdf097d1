from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtime import spec as specs
from orchestrator.runtime.spec import LIMITS, AgentSpec, BadSpecError

SPEC = AgentSpec(
    node="n1",
    job="tiny",
    attempt=2,
    token=7,
    key="0f" * 16,
    command=("python", "train.py"),
    workdir="/work",
)


def said(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(specs.encode(SPEC))), **changes}


@given(
    attempt=st.integers(1, 1000),
    env=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
    health=st.none() | st.lists(st.text(max_size=9), max_size=3).map(tuple),
)
def test_what_is_encoded_is_read_back(
    attempt: int, env: dict[str, str], health: tuple[str, ...] | None
) -> None:
    fields = {**vars(SPEC), "attempt": attempt, "env": env, "health": health}
    spec = AgentSpec(**fields)
    assert specs.decode(json.loads(json.dumps(specs.encode(spec)))) == spec


def test_limits_that_the_job_does_not_declare_are_the_defaults() -> None:
    spec = specs.decode(said(limits={"init": 5}))
    assert spec.limits == {**LIMITS, "init": 5}


def test_neither_key_nor_secrets_show_when_a_spec_is_printed() -> None:
    spec = specs.decode(said(env={"TOKEN": "hush"}))
    assert SPEC.key not in repr(spec)
    assert "hush" not in repr(spec)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": 2}, "version 2"),
        ({"node": "../etc"}, "node"),
        ({"job": ""}, "job"),
        ({"job": ".hidden"}, "job"),
        ({"attempt": 0}, "attempt"),
        ({"attempt": "1"}, "attempt"),
        ({"token": -1}, "token"),
        ({"key": "abc"}, "key"),
        ({"command": "python train.py"}, "command"),
        ({"command": []}, "command"),
        ({"command": [1]}, "command"),
        ({"health": "x"}, "health"),
        ({"launch": "fork"}, "launch"),
        ({"when_alone": "panic"}, "when_alone"),
        ({"progress": {"kind": "magic"}}, "progress.kind"),
        ({"progress": {"kind": "stdout"}}, "progress.pattern"),
        ({"progress": {"kind": "stdout", "pattern": "("}}, "regular expression"),
        ({"stop_grace": -1}, "stop_grace"),
        ({"hang_floor": "60"}, "hang_floor"),
        ({"limits": {"init": float("inf")}}, "init"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadSpecError, match=named):
        specs.decode(said(**changes))


@pytest.mark.parametrize("body", [None, 1, "x", [], {}, {"version": 1}])
def test_what_is_no_spec_is_refused(body: Any) -> None:
    with pytest.raises(BadSpecError):
        specs.decode(body)


@pytest.mark.parametrize("run", ["job.1", "my-job_2.x.17"])
def test_a_run_is_a_job_and_an_attempt(run: str) -> None:
    assert specs.check_run(run) == run


@pytest.mark.parametrize("run", ["job", ".1", "a/b.1", "..", "job.one", "job.1/.."])
def test_a_run_that_would_leave_its_folder_is_refused(run: str) -> None:
    with pytest.raises(BadSpecError):
        specs.check_run(run)
