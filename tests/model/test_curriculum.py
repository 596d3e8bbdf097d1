"""Stages: which step belongs to which, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import curriculum
from model.curriculum import HERE, Curriculum, Moment, Stage, parse, read
from orchestrator.errors import UserError


def two() -> Curriculum:
    first = Stage(name="a", steps=3, mixture={"pictures": 1.0}, learning_rate=0.1, warmup=1)
    second = Stage(name="b", steps=5, mixture={"numbers": 1.0}, learning_rate=0.2, warmup=1)
    return Curriculum((first, second))


def test_the_stage_of_a_step_follows_from_the_step() -> None:
    plan = two()
    moments = [plan.at(step) for step in range(1, 9)]
    assert moments[:4] == [Moment(0, 1), Moment(0, 2), Moment(0, 3), Moment(1, 1)]
    assert moments[-1] == Moment(1, 5)
    assert plan.at(9) == Moment(1, 6)  # what would come after the last
    assert plan.steps == 8
    assert [step for step in range(1, 9) if plan.ends_stage(step)] == [3, 8]
    assert plan.learning_rate_at(1) == pytest.approx(0.1)
    assert plan.learning_rate_at(4) == pytest.approx(0.2)


@pytest.mark.parametrize("path", sorted(HERE.glob("*.toml")), ids=lambda path: str(path.stem))
def test_every_curriculum_of_the_package_can_be_read(path: Path) -> None:
    assert read(path.stem).steps > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "stage 'a': steps must be at least 1"),
        ({"stepz": 3}, "unknown key 'stepz'; known: name steps"),
        ({"steps": "many"}, "steps = 'many' is not of the type int"),
        ({"mixture": {}}, "mixture needs a source"),
        ({"mixture": {"picture": 1.0}}, "unknown source 'picture' in the mixture"),
        ({"objectives": {"guess": 1.0}}, "unknown objective 'guess'; known: prefix"),
        ({"learning_rate": 2}, "learning_rate must lie between 0 and 1"),
        ({"languages": []}, "is not of the type"),
    ],
)
def test_a_wrong_key_is_named(change: dict[str, object], says: str) -> None:
    table = {"name": "a", "steps": 3, "mixture": {"pictures": 1.0}, **change}
    with pytest.raises(UserError, match=says):
        parse({"stage": [table]}, "x.toml")


def test_a_missing_key_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the key 'mixture' is missing"):
        parse({"stage": [{"name": "a", "steps": 3}]}, "x.toml")
    with pytest.raises(UserError, match=r"known ones: .*pictures"):
        read("nothing")
    (tmp_path / "x.toml").write_text("stage = [")
    with pytest.raises(UserError, match=r"x\.toml"):
        read(str(tmp_path / "x.toml"))
    with pytest.raises(UserError, match=r"expected \[\[stage\]\] tables"):
        curriculum.parse({"steps": 3}, "x.toml")
