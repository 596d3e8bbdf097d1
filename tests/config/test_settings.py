from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.config import Settings, load_settings
from orchestrator.config.policy import MEANINGS
from orchestrator.core.policies import Policy
from orchestrator.errors import UserError

Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str) -> Settings:
        path = tmp_path / "holdfast.yaml"
        path.write_text(text)
        return load_settings(path)

    return write_and_load


def mistake(load: Load, text: str) -> str:
    with pytest.raises(UserError) as caught:
        load(text)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(caught.value).partition("holdfast.yaml")[0], "")


def test_an_almost_empty_file_gives_the_defaults(load: Load, tmp_path: Path) -> None:
    settings = load("clusters: []")
    assert settings.core_policy == Policy()
    assert settings.state == tmp_path / "holdfast-state"
    assert settings.ledger_url == f"sqlite:///{tmp_path}/holdfast-state/ledger.db"
    assert settings.secret_file == tmp_path / "holdfast-state" / "secret"
    assert settings.alerts.slack is None


def test_every_limit_of_the_policy_can_be_configured_and_is_explained() -> None:
    assert set(MEANINGS) == {field.name for field in fields(Policy)}


def test_the_policy_becomes_the_core_s(load: Load) -> None:
    settings = load("policy: {burn_in: 3s, patience: 1h30m, repair: false, observe: ['xid:79']}")
    policy = settings.core_policy
    assert policy.burn_in == timedelta(seconds=3)
    assert policy.patience == timedelta(minutes=90)
    assert policy.repair is False
    assert policy.observe == frozenset({"xid:79"})
    assert policy.standbys == Policy().standbys


def test_a_count_of_nodes_names_them_and_a_list_is_taken_as_it_is(load: Load) -> None:
    settings = load(
        "clusters:\n"
        "- {name: a, provider: local, nodes: 2}\n"
        "- {name: b, provider: local, nodes: [x, y], cohort: 2026-08-14}\n"
    )
    assert settings.clusters[0].node_names == ("a-001", "a-002")
    assert settings.clusters[1].node_names == ("x", "y")
    assert settings.clusters[1].cohort == "2026-08-14"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "clusters:\n- name: a\n  provider: local\n  nodes: 1\n"
            "- name: b\n  provider: local\n  nodes: three\n",
            "holdfast.yaml:7: clusters[1].nodes: expected a whole number, got 'three'",
        ),
        ("clusers: []", "holdfast.yaml:1: clusers: unknown key; did you mean 'clusters'?"),
        (
            "policy:\n  burnin: 3s",
            "holdfast.yaml:2: policy.burnin: unknown key; did you mean 'burn_in'?",
        ),
        (
            "policy: {burn_in: 3}",
            "holdfast.yaml:1: policy.burn_in: expected a duration with its unit, "
            "such as 3s, 5m or 1h30m",
        ),
        ("policy: {look_every: 0s}", "policy.look_every: expected a duration above zero"),
        ("policy: {standbys: '1'}", "policy.standbys: expected a whole number, got '1'"),
        ("policy: {standbys: 1.0}", "policy.standbys: expected a whole number, got 1.0"),
        ("policy: {standbys: true}", "policy.standbys: expected a whole number, got true"),
        ("policy: {repair: 1}", "policy.repair: expected true or false, got 1"),
        ("policy: {quarantine_share: 34}", "policy.quarantine_share: should be less than or"),
        ("policy: {explicit: xid}", "policy.explicit: expected a list of detectors"),
        ("policy: [1]", "holdfast.yaml:1: policy: expected keys and values, got a list"),
        (
            "clusters: [{name: a, nodes: 1}]",
            "holdfast.yaml:1: clusters[0].provider: this key is required",
        ),
        (
            "clusters: [{name: a, provider: kubernetes, nodes: 1}]",
            "clusters[0].provider: provider 'kubernetes' comes with a later version; now: local",
        ),
        (
            "clusters: [{name: a, provider: loca, nodes: 1}]",
            "unknown provider 'loca'; did you mean 'local'?",
        ),
        ("clusters: [{name: A/b, provider: local, nodes: 1}]", "clusters[0].name: expected a name"),
        (
            "clusters: [{name: a, provider: local, nodes: 0}]",
            "clusters[0].nodes: should be greater",
        ),
        (
            "clusters: [{name: a, provider: local, nodes: [x, x]}]",
            "clusters: the node name 'x' is given twice",
        ),
        ("state: a\nledger: b\nstate: c", "holdfast.yaml:3: state: given twice, first on line 1"),
        ("clusters: [", "holdfast.yaml:1: not YAML: expected the node content"),
        ("", "holdfast.yaml: expected keys and values, got nothing"),
        ("- a", "holdfast.yaml: expected keys and values, got a list"),
        ("state: !!python/object:os.system {}", "not YAML: could not determine a constructor"),
        ("ledger: mysql://x/y", "ledger: expected sqlite:///PATH of a file, or postgresql://"),
        ("ledger: 'sqlite:///:memory:'", "ledger: expected sqlite:///PATH of a file"),
        ("health: {every: soon}", "health.every: expected a duration"),
        ("[" * 100 + "]" * 100, "nested more than 50 deep"),
    ],
)
def test_a_mistake_is_told_with_its_place(load: Load, text: str, said: str) -> None:
    assert said in mistake(load, text)


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(load: Load) -> None:
    told = mistake(load, "clusters: 3\npolicy: {standbys: x}\nhealt: {}").splitlines()
    assert [line.split(": ")[1] for line in told] == ["clusters", "policy.standbys", "healt"]


def test_a_path_is_taken_from_the_folder_of_the_file(load: Load, tmp_path: Path) -> None:
    settings = load("state: ../run\nledger: sqlite:///db/x.db")
    assert settings.state == tmp_path.parent / "run"
    assert settings.ledger_url == f"sqlite:///{tmp_path}/db/x.db"
    assert settings.cluster_folder("a") == tmp_path.parent / "run" / "clusters" / "a"


def test_a_missing_file_is_the_caller_s_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_settings(tmp_path / "none.yaml")


def test_a_huge_file_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(UserError, match="larger than"):
        load_settings(path)


def test_settings_cannot_be_changed(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load("clusters: []").state = Path("/x")


SECRET = "xoxb-very-secret"


@pytest.mark.parametrize(
    "text",
    [
        f"alerts: {{slack: {{token: {SECRET}, channel: C1}}}}",
        f"alerts: {{slack: {{token: {{env: {SECRET}}}, channel: C1}}}}",
        f"alerts: {{slack: {{token: {{value: {SECRET}}}, channel: C1}}}}",
        f"alerts: {{slack: {{token: [{SECRET}], channel: C1}}}}",
        f"ledger: postgresql://me:{SECRET}@host/db",
        f"alerts: {{slack: {{token: {SECRET}: x",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(load: Load, text: str) -> None:
    assert SECRET not in mistake(load, text)


def test_a_secret_is_read_when_it_is_needed_and_never_shown(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(SECRET + "\n")
    settings = load(
        "ledger: {env: HOLDFAST_TEST_LEDGER}\n"
        "alerts: {slack: {token: {file: token}, channel: C1}}\n"
    )
    assert settings.alerts.slack is not None
    assert settings.alerts.slack.token.reveal() == SECRET
    assert SECRET not in repr(settings)
    with pytest.raises(UserError, match="HOLDFAST_TEST_LEDGER is not set"):
        _ = settings.ledger_url
    monkeypatch.setenv("HOLDFAST_TEST_LEDGER", f"postgresql://me:{SECRET}@host/db")
    assert settings.ledger_url.endswith("@host/db")
    assert SECRET not in settings.ledger_shown


def test_a_secret_s_file_must_be_there_and_hold_something(load: Load, tmp_path: Path) -> None:
    settings = load("ledger: {file: url}")
    with pytest.raises(UserError, match="cannot be read"):
        _ = settings.ledger_url
    (tmp_path / "url").touch()
    with pytest.raises(UserError, match="is empty"):
        _ = settings.ledger_url
