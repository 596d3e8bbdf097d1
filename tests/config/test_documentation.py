"""docs/configuration.md knows every key, and the examples are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import JobFile, Settings, duration, load_job, load_settings, spell
from orchestrator.core.policies import Policy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def keys(schema: dict[str, Any]) -> Iterator[str]:
    yield from schema.get("properties", {})
    for part in schema.get("$defs", {}).values():
        yield from part.get("properties", {})


@pytest.mark.parametrize("model", [Settings, JobFile])
def test_every_key_is_documented(model: type[Settings] | type[JobFile]) -> None:
    missing = [
        key
        for key in keys(model.model_json_schema(by_alias=True))
        if f"`{key}`" not in PAGE
        and f"slack.{key}`" not in PAGE
        and f"{{{key}:" not in PAGE
        and f", {key}:" not in PAGE
        and f"`alerts.{key}`" not in PAGE
    ]
    assert missing == []


@pytest.mark.parametrize("model", [Settings, JobFile])
def test_every_key_has_a_description(model: type[Settings] | type[JobFile]) -> None:
    schema = model.model_json_schema(by_alias=True)
    parts = [schema, *schema["$defs"].values()]
    bare = [
        name
        for part in parts
        for name, about in part.get("properties", {}).items()
        if not about.get("description")
    ]
    assert bare == []


def test_the_documented_durations_of_the_policy_are_the_defaults() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    told = {row[0].strip("|` "): row[1] for row in rows}
    policy = Policy()
    for name in ("burn_in", "patience", "look_every", "silence_max", "sweep_after", "repair_wait"):
        assert spell(duration(told[name])) == spell(getattr(policy, name)), name


def test_the_examples_are_right() -> None:
    settings = load_settings(ROOT / "examples" / "holdfast.yaml")
    assert [cluster.name for cluster in settings.clusters] == ["a", "b"]
    spec = load_job(ROOT / "examples" / "job.yaml").to_spec()
    assert spec.launch["progress"]["kind"] == "stdout"
    assert spec.nodes_min <= len(settings.clusters[0].node_names)
